"""Rewards by a language model: an answer's share of wins against the other answers to its prompt."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, islice
from pathlib import Path

from tureen_train.config import JudgeSource
from tureen_train.judge.comparisons import Comparison
from tureen_train.judge.configuration import read_configuration
from tureen_train.judge.language_judge import Endpoint, LanguageJudge
from tureen_train.networks.reward_reader import spread_progress
from tureen_train.policies.rollouts.contract import Done, Prompt, Sample
from tureen_train.policies.rollouts.valuing import Samples, Value, Valued, Valuer
from tureen_train.policies.rollouts.wins import share_wins

TOOLS = "the prompt has tools or template arguments, which a judge does not read"


class JudgeValuer:
    """Values answers by a judge, which compares all pairs of the answers to a prompt."""

    def __init__(self, name: str, judge: LanguageJudge) -> None:
        self.name = name
        self.judge = judge

    @property
    def names(self) -> Sequence[str]:
        """The name of the reward."""
        return [self.name]

    def value_samples(self, prompts: Sequence[Prompt], samples: Samples, done: Done) -> Valued:
        """See :class:`.valuing.Valuer`. A judge reads no tools, so answers to a prompt with tools have no value."""
        wanted = [
            [] if prompt.template_arguments else _pair_answers(prompt, own)
            for prompt, own in zip(prompts, samples, strict=True)
        ]
        before = Counter(self.judge.counts)
        count, pairs = sum(map(len, samples)), [pair for some in wanted for pair in some]
        judged = iter(self.judge.compare(pairs, spread_progress(done, count, len(pairs))))
        if not pairs:
            done(count)
        values = [
            [Value(None, TOOLS)] * len(own)
            if prompt.template_arguments
            else share_wins(len(own), list(islice(judged, len(some))))
            for prompt, own, some in zip(prompts, samples, wanted, strict=True)
        ]
        return Valued({self.name: values}, {self.name: self.judge.counts - before})


def _pair_answers(prompt: Prompt, samples: Sequence[Sample]) -> list[Comparison]:
    return [Comparison(prompt.messages, one.text, other.text) for one, other in combinations(samples, 2)]


def open_judges(sources: Sequence[JudgeSource], folder: Path) -> list[Valuer]:
    """Open the judges that sources name. What they say is kept in ``folder``. Only one process may open them.

    Raises:
        RecipeError: there is no such criterion.
    """
    path = folder / "judgements.jsonl"
    return [JudgeValuer(source.name, open_source_judge(source, path)) for source in sources]


def open_source_judge(source: JudgeSource, path: Path) -> LanguageJudge:
    """Open the judge of a recipe's source. It is asked in the style ``evaluate``, with the source's own settings."""
    configuration = read_configuration(source.criterion, orders=source.orders)
    sampling = {"temperature": source.temperature, "max_tokens": source.max_tokens}
    endpoint = Endpoint(source.url, source.model, source.concurrency, source.timeout)
    return LanguageJudge(configuration.model_copy(update=sampling), endpoint, path)
