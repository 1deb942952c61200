"""Calibration of raw rewards: a mean and a standard deviation, and a temperature for probabilities.

A Bradley-Terry reward has no origin and no unit. ``mean`` and ``std`` over held-out answers give it both, so that a
weighted sum of rewards of several models is meaningful. ``temperature`` makes σ(Δ/T) a calibrated probability
(temperature scaling, Guo et al., arXiv 1706.04599). n pairs that are all ranked right cannot tell that the next one is
right for sure, so it is fitted with Platt's prior (Probabilistic outputs for support vector machines, 1999).

A reward without a calibration has no scale: only its raw number is known. Alone, it is used raw, and σ(Δ) is its
probability, as the Bradley-Terry model says. It cannot be added to other rewards.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field

from tureen.errors import Unprocessable

LOWEST, HIGHEST = 0.01, 100.0


class Calibration(BaseModel):
    """The scale of one objective, kept in the artifact's manifest.

    Example::

        scale = Calibration(mean=1.0, std=2.0, temperature=1.5)
        scale.standardise(3.0)  # 1.0
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float = Field(default=0.0, allow_inf_nan=False)
    std: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @property
    def worse_than_chance(self) -> bool:
        """Whether the temperature ended at its upper bound, so that on the held-out pairs no probability is honest."""
        return self.temperature > 0.999 * HIGHEST

    def standardise(self, raw: float) -> float:
        """Scale a raw reward: (raw − mean) / std."""
        return (raw - self.mean) / self.std

    def probability(self, raw: float) -> float:
        """Turn log-odds into a probability: σ(raw / temperature)."""
        return compute_sigmoid(raw / self.temperature)

    def logit(self, raw: float, other: float) -> float:
        """Compute the log-odds that the first of two answers is preferred: (raw − other) / temperature."""
        return (raw - other) / self.temperature


UNSCALED = Calibration()
CALIBRATE = "`tureen-train import --calibrate`"


def resolve_scale(scale: Calibration | None) -> Calibration:
    """Return the scale to compute with. An uncalibrated reward stays raw, and its temperature is 1."""
    return UNSCALED if scale is None else scale


def check_common_scale(
    summed: Collection[str], scales: Mapping[str, Calibration | None], field: str = "preferences"
) -> None:
    """Check that rewards can be added up: several rewards need a calibration each. One alone needs none.

    Args:
        summed: the names of the rewards whose weight is not 0.
        scales: the calibration of each reward.
        field: the field of the request that names the rewards, for the error.

    Raises:
        Unprocessable: there are several rewards and one of them has no calibration.
    """
    bare = [name for name in summed if scales[name] is None]
    if bare and len(summed) > 1:
        others = ", ".join(name for name in summed if name != bare[0])
        message = f"{bare[0]} has no calibration, so it has no common scale with {others}"
        remedy = "ask for it alone, or without weights for the raw rewards, or calibrate it with"
        raise Unprocessable(f"{message}; {remedy} {CALIBRATE}", param=field, code="uncalibrated_reward")


def compute_sigmoid(logit: float) -> float:
    """Compute σ(logit) without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)


def fit_calibration(raw: Sequence[float], gaps: Sequence[float]) -> Calibration:
    """Fit the scale of an objective on held-out answers.

    Example::

        fit_calibration(raw=[0.5, 2.5, 1.0, 4.0], gaps=[2.0, 3.0])  # mean 2.0, std 1.37, temperature 2.27

    Args:
        raw: rewards of all answers.
        gaps: the chosen minus the rejected reward of each pair; without pairs the temperature is 1.

    Returns:
        The mean of ``raw``, its population standard deviation (1 if all rewards are equal), and the temperature of
        :func:`fit_temperature`.

    Raises:
        ValueError: there are no rewards, or a reward or gap is not finite.
    """
    if not len(raw):
        raise ValueError("no rewards to calibrate on: hold some answers out")
    rewards = _finite(raw, "reward")
    mean, std = float(rewards.mean()), float(rewards.std(correction=0))
    constant = std <= 1e-12 * max(1.0, abs(mean))
    return Calibration(mean=mean, std=1.0 if constant else std, temperature=fit_temperature(gaps))


def fit_temperature(gaps: Sequence[float]) -> float:
    """Find the temperature T in [0.01, 100] that fits n pairs best with Platt's target t = (n + 1) / (n + 2).

    t stands in place of 1: it is the mean of the posterior under a uniform prior if all n are right. T minimises
    Σ t·softplus(−gap/T) + (1 − t)·softplus(gap/T), by bisection: the sum is convex in 1/T. Gaps of zero do not change
    with T and are not counted. If no other gap is left, T is 1. If gaps are mostly negative, T is 100.

    Raises:
        ValueError: a gap is not finite.
    """
    gap = _finite(gaps, "gap")
    gap = gap[gap != 0]
    if not len(gap):
        return 1.0
    target = (len(gap) + 1) / (len(gap) + 2)
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(80):
        middle = math.sqrt(low * high)
        falling = float((gap * (torch.sigmoid(gap * middle) - target)).sum()) < 0
        low, high = (middle, high) if falling else (low, middle)
    return 1 / math.sqrt(low * high)


def _finite(values: Sequence[float], what: str) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=torch.float64)
    bad = (~tensor.isfinite()).nonzero()
    if len(bad):
        index = int(bad[0, 0])
        raise ValueError(f"{what} {index} is {values[index]}, not a finite number; nothing can be calibrated on it")
    return tensor
