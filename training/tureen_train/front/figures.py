"""The figures of measured methods: fronts, hypervolumes, win rates, texts and costs. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tureen_train.front.comparing import share_win
from tureen_train.front.grids import EVERYWHERE
from tureen_train.front.hypervolume import count_below, measure_hypervolume
from tureen_train.front.measured import MeasuredFront, MeasuredMethod, Table
from tureen_train.front.pareto import find_front, find_tolerant_front
from tureen_train.measures.intervals import Figure, Places, bootstrap_interval
from tureen_train.measures.repetition import compute_distinct_bigrams

OWN = "weighted reward"


@dataclass(frozen=True)
class MethodFigures:
    """A method's figures. Intervals are bootstrapped over the prompts, with the same draws for all methods.

    Attributes:
        hypervolume: of its mean rewards, above the reference.
        gain: its hypervolume minus the baseline's, paired.
        below: the number of its points that add nothing, since the reference is not below them.
        wins: its win rate against the baseline, by the weighted reward of each point and by the judge.
        unjudged: the comparisons that the judge did not decide.
        words: the mean number of words of an answer.
        finished: the share of answers that ended by themselves.
        distinct: the mean distinct-2.
        divergence: the mean of (log π − log π_base) per token over the answers, in nats. At temperature 1 it estimates
            the KL divergence from the base. NaN where it was not measured, as for chosen candidates.
        tokens: the mean number of tokens that were generated for an answer; NaN if a server did not tell.
        seconds: the mean time of a request; requests run side by side.
        training_seconds, training_gib: what training cost; None if unknown.
    """

    hypervolume: Figure
    gain: Figure
    below: int
    wins: Mapping[str, Figure]
    unjudged: int
    words: float
    finished: float
    distinct: float
    divergence: float
    tokens: float
    seconds: float
    training_seconds: float | None
    training_gib: float | None


@dataclass(frozen=True)
class FrontPoint:
    """The mean rewards of a method at a point.

    Attributes:
        front: whether no point of any method dominates it.
        tolerant: whether it is on RiC's tolerant front of all points.
        own: whether no other point of its method dominates it.
    """

    method: str
    point: str
    means: Sequence[float]
    front: bool
    tolerant: bool
    own: bool


def list_front_points(front: MeasuredFront) -> list[FrontPoint]:
    """List the points of all methods, and which are on the front."""
    places = [(method, row) for method in front.methods.values() for row in range(len(method.points))]
    table = np.array([method.means[row] for method, row in places])
    exact, tolerant = set(find_front(table)), set(find_tolerant_front(table, front.tolerance))
    own = {name: set(find_front(method.means)) for name, method in front.methods.items()}
    return [
        FrontPoint(
            method.name,
            method.points[row],
            [float(mean) for mean in method.means[row]],
            at in exact,
            at in tolerant,
            row in own[method.name],
        )
        for at, (method, row) in enumerate(places)
    ]


def compute_figures(front: MeasuredFront, name: str) -> MethodFigures:
    """Compute the figures of one method."""
    method, baseline = front.methods[name], front.methods[front.baseline]
    every = [answer for answers in method.answers.values() for answer in answers]
    tokens = [each.tokens for each in every if each.tokens is not None]
    judged = [share for shares in method.shares.values() for share in shares]
    wins = {OWN: compute_win_rate(compare_rewards(front, method, baseline))}
    if front.judge is not None and judged:
        wins[front.judge] = compute_win_rate(np.array(list(method.shares.values())))
    distinct = [value for each in every if not math.isnan(value := compute_distinct_bigrams(each.text))]
    prompts = method.rewards.shape[1]
    return MethodFigures(
        bootstrap_interval(lambda places: _volume(method, front, places), prompts),
        bootstrap_interval(lambda places: _volume(method, front, places) - _volume(baseline, front, places), prompts),
        count_below(method.means, front.reference),
        wins,
        sum(map(math.isnan, judged)),
        float(np.mean([len(each.text.split()) for each in every])),
        float(np.mean([each.finished for each in every])),
        float(np.mean(distinct)) if distinct else math.nan,
        float(np.mean(method.ratios)) if method.ratios else math.nan,
        float(np.mean(tokens)) if len(tokens) == len(every) else math.nan,
        float(np.mean([each.seconds for each in every])),
        method.seconds,
        method.gib,
    )


def _volume(method: MeasuredMethod, front: MeasuredFront, places: Places) -> float:
    return measure_hypervolume(method.rewards[:, places].mean(1), front.reference)


def compare_rewards(front: MeasuredFront, method: MeasuredMethod, other: MeasuredMethod) -> Table:
    """The shares of the win ``[points, prompts]`` by the weighted reward of each point that both methods have."""
    rows = []
    for point, weights in front.grid.items():
        places = method.find_row(point), other.find_row(point)
        if None in places:
            continue
        weighed = [weights.get(name, 0.0) for name in front.objectives]
        own, others = (each.rewards[row] @ np.array(weighed) for each, row in zip((method, other), places, strict=True))
        rows.append([share_win(float(one), float(two)) for one, two in zip(own, others, strict=True)])
    return np.array(rows).reshape(len(rows), method.rewards.shape[1])


def compute_win_rate(shares: Table) -> Figure:
    """The mean share of the win over points and prompts; a resample draws prompts with all their points.

    Args:
        shares: ``[points, prompts]``; NaN is left out.
    """
    if not shares.size or np.isnan(shares).all():
        return Figure(math.nan)
    known = ~np.isnan(shares)
    filled = np.where(known, shares, 0.0)

    def rate(places: Places) -> float:
        count = int(known[:, places].sum())
        return float(filled[:, places].sum() / count) if count else math.nan

    return bootstrap_interval(rate, shares.shape[1], int(known.sum()))


def describe_point(point: str) -> str:
    """A point's name for people."""
    return "all preferences" if point == EVERYWHERE else point
