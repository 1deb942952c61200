"""Rewards by a language model: an answer's share of wins against the other answers to its prompt."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, islice
from pathlib import Path

from tureen_train.config import JudgeSource
from tureen_train.networks.reward_reader import spread_progress
from tureen_train.policies.rollouts.comparison_prompts import Comparison
from tureen_train.policies.rollouts.contract import Done, Prompt, Sample
from tureen_train.policies.rollouts.judge import Judgement, LanguageJudge
from tureen_train.policies.rollouts.valuing import Samples, Value, Valued, Valuer
from tureen_train.settings import read_rank

TOOLS = "the prompt has tools or template arguments, which a judge does not read"
ALONE = "it is the only answer to its prompt, and a judge compares answers"


class JudgeValuer:
    """Values answers by a judge, which compares all pairs of the answers to a prompt.

    An answer has a value if all its comparisons have a verdict: a share of fewer wins would be of other opponents.
    """

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


def share_wins(count: int, judged: Sequence[Judgement]) -> list[Value]:
    """Compute each answer's share of wins against the others to its prompt; a tie is half a win.

    Args:
        count: the number of answers, N.
        judged: the comparisons of all pairs, in the order of ``combinations(range(N), 2)``.
    """
    if count == 1:
        return [Value(None, ALONE)]
    won, errors = [0.0] * count, [""] * count
    for (one, other), each in zip(combinations(range(count), 2), judged, strict=True):
        if each.share is None:
            errors[one], errors[other] = errors[one] or each.error, errors[other] or each.error
        else:
            won[one] += each.share
            won[other] += 1 - each.share
    return [Value(None, error) if error else Value(wins / (count - 1)) for wins, error in zip(won, errors, strict=True)]


def open_judges(sources: Sequence[JudgeSource], folder: Path) -> list[Valuer]:
    """Open the judges that sources name. What they say is kept in ``folder``, by each rank in a file of its own.

    Raises:
        RecipeError: there is no such criterion.
    """
    rank = read_rank()
    path = folder / (f"judgements-{rank}.jsonl" if rank else "judgements.jsonl")
    return [JudgeValuer(source.name, LanguageJudge(source, path)) for source in sources]
