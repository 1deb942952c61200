"""From raw rewards to comparable ones: a mean and a deviation, and a temperature for probabilities.

A Bradley-Terry reward has no origin and no unit. ``mean`` and ``std`` over held-out answers give it both, so that
rewards of several models can be weighed against each other; ``temperature`` makes σ(Δ/T) an honest probability
(temperature scaling, Guo et al., arXiv 1706.04599).
"""

import math
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field

LOWEST, HIGHEST = 0.01, 100.0


class Calibration(BaseModel):
    """The scale of one objective, kept in the artifact's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float = Field(default=0.0, allow_inf_nan=False)
    std: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @property
    def worse_than_chance(self) -> bool:
        """Whether the temperature ended at its upper bound, so that on the held-out pairs no probability is honest."""
        return self.temperature > 0.999 * HIGHEST

    def standardise(self, raw: float) -> float:
        """(raw − mean) / std."""
        return (raw - self.mean) / self.std

    def probability(self, raw: float) -> float:
        """σ(raw / temperature): how likely it is, where the raw number is log-odds."""
        return compute_sigmoid(raw / self.temperature)

    def logit(self, raw: float, other: float) -> float:
        """Log-odds that the first is preferred, (raw − other) / temperature."""
        return (raw - other) / self.temperature


def compute_sigmoid(logit: float) -> float:
    """σ(logit), without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)


def fit_calibration(raw: Sequence[float], gaps: Sequence[float]) -> Calibration:
    """Calibrate on held-out answers.

    Args:
        raw: rewards of all answers.
        gaps: chosen minus rejected reward of each comparable pair; none gives temperature 1.

    Returns:
        Population mean and deviation of ``raw`` (1 where all are equal), and the temperature in [0.01, 100] with the
        least negative log-likelihood of the pairs.

    Raises:
        ValueError: no rewards, or a reward or gap that is not finite.
    """
    if not len(raw):
        raise ValueError("no rewards to calibrate on: hold some answers out")
    rewards = _finite(raw, "reward")
    mean, std = float(rewards.mean()), float(rewards.std(correction=0))
    constant = std <= 1e-12 * max(1.0, abs(mean))
    return Calibration(mean=mean, std=1.0 if constant else std, temperature=fit_temperature(gaps))


def fit_temperature(gaps: Sequence[float]) -> float:
    """argmin over T of Σ softplus(−gap/T): convex in 1/T, so bisection on its derivative finds it.

    Gaps of zero say nothing about T. Where no other is left it is 1; where all have one sign it is 0.01 (all right)
    or 100 (all wrong).

    Raises:
        ValueError: a gap is not finite.
    """
    gap = _finite(gaps, "gap")
    if not bool(gap.any()):
        return 1.0
    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(80):
        middle = math.sqrt(low * high)
        rising = float((gap * torch.sigmoid(-gap * middle)).sum()) < 0
        low, high = (low, middle) if rising else (middle, high)
    return 1 / math.sqrt(low * high)


def _finite(values: Sequence[float], what: str) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=torch.float64)
    bad = (~tensor.isfinite()).nonzero()
    if len(bad):
        index = int(bad[0, 0])
        raise ValueError(f"{what} {index} is {values[index]}, not a finite number; nothing can be calibrated on it")
    return tensor
