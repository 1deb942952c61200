"""The figures of a measured family: what each expert does to each reward, and each sweep's rank correlations. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tureen_train.families.answers import MeasuredAnswer
from tureen_train.families.mixes import BASE, Sweep, name_mix
from tureen_train.measures.correlation import compute_spearman
from tureen_train.measures.intervals import Figure, Places, bootstrap_interval
from tureen_train.measures.repetition import compute_distinct_bigrams

Answers = Mapping[str, Sequence[MeasuredAnswer]]


@dataclass(frozen=True)
class ExpertFigures:
    """One expert alone against the bare base, on the same prompts.

    Attributes:
        gains: by reward, the mean difference of its calibrated reward, with its paired interval.
        judged: the same of the expert's own second judge; None without one.
        tokens: the mean length of its answers.
        finished: the share of its answers that ended with an end token.
        distinct: the mean distinct-2 of its answers.
        kl: the mean KL from the base, in nats per token.
    """

    gains: Mapping[str, Figure]
    judged: Figure | None
    tokens: float
    finished: float
    distinct: float
    kl: float


def compare_with_base(answers: Answers, expert: str, rewards: Sequence[str], judge: str | None) -> ExpertFigures:
    """Compare an expert alone with the base."""
    alone, bare = answers[name_mix({expert: 1.0})], answers[BASE]
    kls = [each.kl for each in alone if each.kl is not None]
    return ExpertFigures(
        gains={name: _gain(alone, bare, name) for name in rewards},
        judged=_gain(alone, bare, judge) if judge else None,
        **describe_texts(alone),
        kl=float(np.mean(kls)) if kls else float("nan"),
    )


def describe_texts(answers: Sequence[MeasuredAnswer]) -> dict[str, float]:
    """Compute the mean length in tokens, the share of finished answers, and the mean distinct-2."""
    return {
        "tokens": float(np.mean([each.tokens for each in answers])),
        "finished": float(np.mean([each.finished for each in answers])),
        "distinct": _mean_known([compute_distinct_bigrams(each.text) for each in answers]),
    }


def _mean_known(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


def _gain(alone: Sequence[MeasuredAnswer], bare: Sequence[MeasuredAnswer], reward: str) -> Figure:
    """The mean difference of a reward over the prompts, with the interval of the paired bootstrap."""
    gaps = np.array([one.rewards[reward] - other.rewards[reward] for one, other in zip(alone, bare, strict=True)])

    def mean(places: Places) -> float:
        return float(gaps[places].mean())

    return bootstrap_interval(mean, len(gaps))


def average_sweep(answers: Answers, sweep: Sweep, reward: str) -> list[float]:
    """Compute a reward's mean over the prompts at each weight of a sweep."""
    return [average_reward(answers[name_mix(mix)], reward) for mix in sweep.mixes]


def average_reward(answers: Sequence[MeasuredAnswer], reward: str) -> float:
    """Compute a reward's mean over the prompts."""
    return float(np.mean([each.rewards[reward] for each in answers]))


def correlate_sweep(answers: Answers, sweep: Sweep) -> dict[str, float]:
    """Compute Spearman's correlation of each end's mean reward with its own weight."""
    second = np.array(sweep.weights)
    own = {sweep.first: 1 - second, sweep.second: second}
    return {
        name: compute_spearman(np.array(average_sweep(answers, sweep, name)), weights) for name, weights in own.items()
    }


@dataclass(frozen=True)
class MeasuredFamily:
    """What was measured.

    Attributes:
        name: the family's.
        objectives: the experts' names, which are those of their rewards.
        judges: the name of each objective's second judge, where it has one.
        sweeps: of all pairs.
        answers: by the name of their mix.
        prompts: the texts of the prompts by their ids, for the page.
    """

    name: str
    objectives: Sequence[str]
    judges: Mapping[str, str]
    sweeps: Sequence[Sweep]
    answers: Answers
    prompts: Mapping[str, str]

    def compare(self) -> dict[str, ExpertFigures]:
        """Compare each expert alone with the base."""
        return {
            name: compare_with_base(self.answers, name, self.objectives, self.judges.get(name))
            for name in self.objectives
        }
