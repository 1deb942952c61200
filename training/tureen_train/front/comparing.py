"""Compare answers with those of the baseline: by a judge, or by a reward that judges. A tie counts one half."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tureen_train.config import ArtifactSource, JudgeSource, ServerSource
from tureen_train.judge.comparisons import Comparison, Judgement
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.rollouts.contract import Done, Prompt, Reward, Sample
from tureen_train.policies.rollouts.judge_rewards import open_source_judge
from tureen_train.policies.rollouts.reward_sum import WeightedRewarder
from tureen_train.policies.rollouts.rewards import open_rewarder


class Comparer(Protocol):
    """Says which of two answers is better."""

    def compare(self, pairs: Sequence[Comparison], done: Done) -> list[Judgement]:
        """Judge pairs: the first answer's share of each win, or why there is none."""


class RewardComparer:
    """A reward model as a judge: the answer with the larger reward wins. Equal rewards tie.

    Args:
        rewarder: of one reward. A pairwise model's reward of an answer is its probability of winning.
    """

    def __init__(self, rewarder: WeightedRewarder) -> None:
        self.rewarder = rewarder

    def compare(self, pairs: Sequence[Comparison], done: Done) -> list[Judgement]:
        """See :class:`Comparer`. Equal answers tie without being read."""
        wanted = [_sort(pair) for pair in pairs if pair.first != pair.second]
        prompts = [Prompt(f"pair:{at}", pair.prompt) for at, pair in enumerate(wanted)]
        samples = [
            [Sample(prompt.id, number, text) for number, text in enumerate((pair.first, pair.second))]
            for prompt, pair in zip(prompts, wanted, strict=True)
        ]
        judged = (_judge(*row) for row in (self.rewarder.reward(prompts, samples, ignore_progress) if prompts else []))
        done(len(pairs))
        return [Judgement(0.5) if pair.first == pair.second else _turn_back(pair, next(judged)) for pair in pairs]


def _sort(pair: Comparison) -> Comparison:
    """The pair in the order in which it is read, whichever of its answers came first."""
    return pair if pair.first <= pair.second else pair.turned


def _judge(first: Reward, second: Reward) -> Judgement:
    if first.total is None or second.total is None:
        return Judgement(None, first.error or second.error)
    return Judgement(share_win(first.total, second.total))


def _turn_back(pair: Comparison, judged: Judgement) -> Judgement:
    """What was said of the sorted pair, of the pair itself."""
    if judged.share is None or pair.first <= pair.second:
        return judged
    return Judgement(1 - judged.share)


def share_win(own: float, other: float) -> float:
    """The share of a win: 1 for the larger number, 0 for the smaller one, and ½ for equal ones."""
    return 0.5 if own == other else float(own > other)


def open_comparer(source: JudgeSource | ArtifactSource | ServerSource, folder: Path) -> Comparer:
    """Open the judge of a recipe. What a language model says is kept in ``folder``.

    Raises:
        RecipeError: there is no such criterion or reward.
        ArtifactError: an artifact cannot be read.
        TureenError: a server cannot be reached.
    """
    if isinstance(source, JudgeSource):
        return open_source_judge(source, folder / "judgements.jsonl")
    return RewardComparer(open_rewarder([source.model_copy(update={"weight": 1.0})], folder / "judge"))
