"""Which answers of a round are kept. Pure: answers and their rewards in, choices with their reasons out."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tureen_train.config import Selection
from tureen_train.policies.rollouts.contract import Reward, Sample
from tureen_train.policies.rollouts.row_filters import find_fronts, reach_quantile

FAILED = "answers without a reward"
EMPTY = "empty answers"
TRUNCATED = "answers that ended at sampling.max_tokens"
BARE = "prompts without an answer to choose from"
EQUAL = "prompts whose answers have equal rewards"
CLOSE = "prompts whose rewards differ by less than select.min_gap"


@dataclass(frozen=True)
class Choice:
    """An answer that is kept, or a pair.

    Attributes:
        prompt: where the prompt stands in the round.
        numbers: of the answer; of a pair, first the better one's.
        why: in a few words.
    """

    prompt: int
    numbers: tuple[int, ...]
    why: str


@dataclass(frozen=True)
class Chosen:
    """What is kept of a round, in the order of its prompts, and what could not be chosen, by reason."""

    choices: Sequence[Choice]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class _Answer:
    """An answer that may be kept. ``values`` are its rewards, each so that more is better."""

    prompt: int
    number: int
    total: float
    values: tuple[float, ...]


@dataclass
class _Pool:
    """The answers that may be kept, by prompt, and the settings of a selection."""

    prompts: list[list[_Answer]]
    settings: Selection
    names: list[str]
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def answers(self) -> list[_Answer]:
        """All of them, in order."""
        return [each for answers in self.prompts for each in answers]


def select_answers(
    samples: Sequence[Sequence[Sample]],
    rewards: Sequence[Sequence[Reward]],
    settings: Selection,
    weights: Mapping[str, float],
) -> Chosen:
    """Select the answers of a round that are learnt from.

    Of equally good answers the first one is taken.

    Args:
        samples: the answers to each prompt.
        rewards: in the same shape.
        weights: the weight of each reward. ``quantile`` and ``pareto`` compare the rewards whose weight is not 0, and
            of one with a negative weight less is better.
    """
    names = [name for name, weight in weights.items() if weight]
    signs = [math.copysign(1.0, weights[name]) for name in names]
    pool = _Pool([], settings, names)
    for at, (answers, found) in enumerate(zip(samples, rewards, strict=True)):
        pool.prompts.append([])
        for sample, reward in zip(answers, found, strict=True):
            fault = _find_fault(sample, reward, settings)
            if fault is not None:
                pool.left_out[fault] += 1
            elif reward.total is not None:
                values = tuple(sign * reward.values[name] for name, sign in zip(names, signs, strict=True))
                pool.prompts[-1].append(_Answer(at, sample.number, reward.total, values))
        pool.left_out[BARE] += not pool.prompts[-1]
    choices = _WAYS[settings.keep](pool)
    return Chosen(choices, dict(+pool.left_out))


def _find_fault(sample: Sample, reward: Reward, settings: Selection) -> str | None:
    if reward.total is None:
        return FAILED
    if sample.empty:
        return EMPTY
    return TRUNCATED if settings.drop_truncated and not sample.finished else None


def _keep_best(pool: _Pool) -> list[Choice]:
    found = [(max(answers, key=lambda each: each.total), len(answers)) for answers in pool.prompts if answers]
    return [_keep(best, f"the best of {count}, {best.total:.6g}") for best, count in found]


def _pair_best_and_worst(pool: _Pool) -> list[Choice]:
    choices = []
    for answers in filter(None, pool.prompts):
        best, worst = max(answers, key=lambda each: each.total), min(answers, key=lambda each: each.total)
        gap = best.total - worst.total
        if not gap > 0:
            pool.left_out[EQUAL] += 1
        elif gap < pool.settings.min_gap:
            pool.left_out[CLOSE] += 1
        else:
            why = f"the best and the worst of {len(answers)}, {best.total:.6g} and {worst.total:.6g}"
            choices.append(Choice(best.prompt, (best.number, worst.number), why))
    return choices


def _keep_share(pool: _Pool) -> list[Choice]:
    """Keep the best ⌈share · n⌉ of all n answers."""
    everything = pool.answers
    count = math.ceil(round(pool.settings.share * len(everything), 9))
    best = sorted(everything, key=lambda each: -each.total)[:count]
    why = f"among the best {count} of {len(everything)}"
    return [
        _keep(each, f"{why}, {each.total:.6g}") for each in sorted(best, key=lambda each: (each.prompt, each.number))
    ]


def _keep_threshold(pool: _Pool) -> list[Choice]:
    least = pool.settings.threshold
    return [_keep(each, f"{each.total:.6g} is {least:.6g} or more") for each in pool.answers if each.total >= least]


def _keep_quantile(pool: _Pool) -> list[Choice]:
    """Keep an answer if any of its rewards reaches its own quantile over all answers (RiC, arXiv 2402.10207, 3.3)."""
    everything = pool.answers
    if not everything:
        return []
    table = np.array([each.values for each in everything])
    choices = []
    for answer, reached in zip(everything, reach_quantile(table, pool.settings.quantile), strict=True):
        names = [name for name, there in zip(pool.names, reached, strict=True) if there]
        if names:
            choices.append(_keep(answer, f"{', '.join(names)} at or above the quantile {pool.settings.quantile:g}"))
    return choices


def _keep_pareto(pool: _Pool) -> list[Choice]:
    why = f"no other answer to the prompt dominates it in {', '.join(pool.names)}"
    return [
        _keep(each, why)
        for answers in filter(None, pool.prompts)
        for each, kept in zip(answers, find_fronts(np.array([one.values for one in answers])), strict=True)
        if kept
    ]


def _keep_all(pool: _Pool) -> list[Choice]:
    return [_keep(each, "all are kept") for each in pool.answers]


def _keep(answer: _Answer, why: str) -> Choice:
    return Choice(answer.prompt, (answer.number,), why)


_WAYS: Mapping[str, Callable[[_Pool], list[Choice]]] = {
    "best": _keep_best,
    "best_and_worst": _pair_best_and_worst,
    "share": _keep_share,
    "threshold": _keep_threshold,
    "quantile": _keep_quantile,
    "pareto": _keep_pareto,
    "all": _keep_all,
}
