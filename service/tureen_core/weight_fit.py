"""The preference weights that best explain which of two answers a person chose. Pure, in float64.

The model is logistic regression on differences of rewards. A person with the weights w on the simplex chooses the first
of two answers with the probability σ(β · Σ wₒ · (rewardₒ of the first − rewardₒ of the second)). The number β is the
person's *decisiveness*: the log-odds for one unit of weighted reward. It is fitted too, since a person who chooses at
random often has other weights than the same choices of a decisive one would have.

The prior is weak: all weights on the simplex are equally likely, and β is log-normal around 2, where a factor of 4 is
one standard deviation. The weights are the mean of the posterior. An interval holds the middle of the posterior; where
the shortest one reaches 0 or 1 it is the shortest, so that it can hold the weight of an objective that does not matter.
Over people as the prior has them, the intervals hold as many weights as they say. Of people who heed a single
objective, whom the prior hardly has, they hold fewer: about 80 % of the weights at the level 0.9 after 60 choices.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from tureen.wire import MAX_OBJECTIVES
from tureen_core.weight_posterior import SEED, TINY, FitError, Numbers, Posterior

MANY_PAIRS = 100_000
DESIGNS = 128  # posterior draws for which the number of pairs is computed


@dataclass(frozen=True)
class WeightFit:
    """The weights that a person's choices tell.

    Attributes:
        weights: by objective, the posterior's mean; they add up to 1.
        intervals: by objective, the interval that holds the weight with the probability ``level``.
        level: as asked for.
        decisiveness: β, the posterior's median: log-odds for one unit of weighted reward.
        decisiveness_interval: its equal-tailed interval.
        log_likelihood: of all choices, in nats, at ``weights`` and ``decisiveness``. Coin flips have −pairs · ln 2.
        accuracy: the share of pairs whose chosen answer has the larger weighted reward; an equal one counts ½.
        pairs: the number of choices.
        pairs_needed: how many more choices of this kind make every interval at most ``width`` wide; None if more than
            100,000 would not.
        width: as asked for.
    """

    weights: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    level: float
    decisiveness: float
    decisiveness_interval: tuple[float, float]
    log_likelihood: float
    accuracy: float
    pairs: int
    pairs_needed: int | None
    width: float


def fit_weights(
    chosen: Sequence[Mapping[str, float]],
    rejected: Sequence[Mapping[str, float]],
    level: float = 0.95,
    width: float = 0.2,
    go_on: Callable[[], object] = lambda: None,
) -> WeightFit:
    """Fit the weights to choices between two answers.

    Example::

        fit_weights([{"helpful": 1.0, "harmless": -0.5}], [{"helpful": 0.0, "harmless": 0.5}]).weights
        # {"harmless": 0.41, "helpful": 0.59}

    Args:
        chosen: the rewards of the answer that was chosen in each pair, by objective. All have the same objectives.
        rejected: those of the other answer. The unit is that in which the weights are to be used: deviations.
        level: the probability that an interval holds its weight, above 0 and below 1.
        width: the width of all intervals for which ``pairs_needed`` is computed.
        go_on: is called between the parts of the computation, of a second or less; it may raise to end it.

    Raises:
        FitError: there is no pair, the objectives differ, there are fewer than 2 or more than 16, a reward is not
            finite, or rewards are so large that the posterior cannot be computed.
    """
    names, gaps = _read_gaps(chosen, rejected)
    posterior = Posterior(gaps, go_on)
    shares, steepness, mass = posterior.sample()
    weights = mass @ shares
    weights /= weights.sum()
    intervals = _find_intervals(shares, mass, level)
    low, middle, high = _quantiles(steepness, mass, ((1 - level) / 2, 0.5, (1 + level) / 2))
    odds = gaps @ weights
    widths = [high - low for low, high in intervals]
    return WeightFit(
        weights=dict(zip(names, weights.tolist(), strict=True)),
        intervals=dict(zip(names, intervals, strict=True)),
        level=level,
        decisiveness=middle,
        decisiveness_interval=(low, high),
        log_likelihood=float(-np.logaddexp(0.0, -middle * odds).sum()),
        accuracy=float(np.mean(np.where(odds == 0, 0.5, odds > 0))),
        pairs=len(gaps),
        pairs_needed=_count_needed(gaps, shares, steepness, mass, widths, level, width),
        width=width,
    )


def _read_gaps(
    chosen: Sequence[Mapping[str, float]], rejected: Sequence[Mapping[str, float]]
) -> tuple[list[str], Numbers]:
    """The objectives in the order of their names, and the differences ``[pairs, objectives]``."""
    if not chosen or len(chosen) != len(rejected):
        raise FitError(f"there are {len(chosen)} chosen and {len(rejected)} rejected answers; give one or more pairs")
    names = sorted(chosen[0])
    if not 2 <= len(names) <= MAX_OBJECTIVES:
        raise FitError(f"there are {len(names)} objectives; give 2 to {MAX_OBJECTIVES}")
    for number, rewards in enumerate([*chosen, *rejected]):
        if sorted(rewards) != names:
            found = f"has the rewards {', '.join(sorted(rewards)) or 'none'}, not {', '.join(names)}"
            raise FitError(f"pair {number % len(chosen)} {found}; give every answer the same ones")
    table = np.array([[[row[name] for name in names] for row in side] for side in (chosen, rejected)], dtype=np.float64)
    if not np.isfinite(table).all():
        raise FitError("a reward is not a finite number")
    gaps: Numbers = table[0] - table[1]
    if np.abs(gaps).max() > 1e6:
        raise FitError("two rewards differ by more than 1,000,000; give rewards in deviations")
    return names, gaps


def _quantiles(values: Numbers, mass: Numbers, wanted: Sequence[float]) -> list[float]:
    order = np.argsort(values)
    reached = np.cumsum(mass[order])
    return [float(values[order][min(int(np.searchsorted(reached, share)), len(values) - 1)]) for share in wanted]


def _find_intervals(shares: Numbers, mass: Numbers, level: float) -> list[tuple[float, float]]:
    """The interval of each weight. If 0 is possible for all others, 1 is possible for a weight."""
    found = [_find_interval(column, mass, level) for column in shares.T]
    zeros = [low == 0 for low, _ in found]
    return [
        (low, 1.0 if all(zeros[:number] + zeros[number + 1 :]) else high) for number, (low, high) in enumerate(found)
    ]


def _find_interval(values: Numbers, mass: Numbers, level: float) -> tuple[float, float]:
    """The interval that holds ``level`` of weighted draws: the middle, or the shortest where that reaches 0 or 1."""
    order = np.argsort(values)
    sorted_values, reached = values[order], np.concatenate([[0.0], np.cumsum(mass[order])])
    starts = np.flatnonzero(reached[:-1] < 1 - level)
    ends = np.minimum(np.searchsorted(reached[1:], reached[starts] + level), len(values) - 1)
    edge = (1 - level) / 20  # a share that is too small to tell from none
    lows = np.where(reached[starts] < edge, 0.0, sorted_values[starts])
    highs = np.where(1 - reached[ends + 1] < edge, 1.0, sorted_values[ends])
    best = int(np.argmin(highs - lows))
    low, high = float(lows[best]), float(highs[best])
    if low == 0 or high == 1:
        return low, high
    low, high = _quantiles(values, mass, ((1 - level) / 2, (1 + level) / 2))
    return low, high


def _count_needed(
    gaps: Numbers,
    shares: Numbers,
    steepness: Numbers,
    mass: Numbers,
    widths: Sequence[float],
    level: float,
    width: float,
) -> int | None:
    """How many more pairs with such differences make all intervals at most ``width`` wide.

    For draws from the posterior, the information of one pair tells how fast the weights' variance falls; the number is
    the median over the draws. The variance of w = θ / Σθ follows from that of θ = β·w by the derivative.
    """
    if max(widths) <= width:
        return 0
    rng = np.random.default_rng(SEED)
    numbers = [
        _count_for(gaps, shares[at], float(steepness[at]), level, width)
        for at in rng.choice(len(mass), size=DESIGNS, p=mass)
    ]
    total = float(np.median(numbers))
    if total > MANY_PAIRS:
        return None
    return max(1, math.ceil(total) - len(gaps))


def _count_for(gaps: Numbers, weights: Numbers, steepness: float, level: float, width: float) -> float:
    odds = np.clip(steepness * (gaps @ weights), -500, 500)
    information = (gaps * (1 / (2 + np.exp(odds) + np.exp(-odds)))[:, None]).T @ gaps / len(gaps)
    values, vectors = np.linalg.eigh(information)
    if values[0] <= 1e-9 * max(float(values[-1]), TINY):
        return math.inf
    slope = (np.eye(len(weights)) - weights[:, None]) / steepness  # of each w by each θ
    variance = (((slope @ vectors) ** 2) / values).sum(1).max()
    return float(variance * (2 * NormalDist().inv_cdf((1 + level) / 2) / width) ** 2)


def describe_fit(fit: WeightFit, preset: str) -> dict[str, Any]:
    """Return the fields of a reply (:class:`tureen.wire.FitReply`), with a preset of that name."""
    chance = -fit.pairs * math.log(2)
    return {**vars(fit), "chance_log_likelihood": chance, "preset": {preset: round_weights(fit.weights)}}


def round_weights(weights: Mapping[str, float], decimals: int = 3) -> dict[str, float]:
    """Round weights so that they still add up to 1, and leave out zeros: as a preset has them."""
    rounded = {name: round(weight, decimals) for name, weight in weights.items()}
    largest = max(rounded, key=lambda name: rounded[name])
    rounded[largest] = round(rounded[largest] + 1 - math.fsum(rounded.values()), decimals)
    return {name: weight for name, weight in rounded.items() if weight > 0}
