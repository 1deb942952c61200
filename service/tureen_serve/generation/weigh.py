"""Arithmetic on rewards: combine several objectives into one number, and compare two answers. Pure.

Weights apply to calibrated rewards, (raw − mean) / std, because raw rewards have no common unit. Probabilities use the
difference of raw rewards, divided by the Bradley-Terry temperature of each objective. A reward without a calibration
counts raw, with the temperature 1; :func:`tureen_core.calibration.check_common_scale` lets it be weighed only alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tureen_core.calibration import Calibration, compute_sigmoid, resolve_scale

Weights = Mapping[str, float]
Raw = Mapping[str, float]
Scales = Mapping[str, Calibration | None]

LARGEST = (2 - 2**-23) * 2.0**127  # of float32


def blend_scales(weights: Weights, scales: Scales) -> Calibration | None:
    """Return the calibration of a soup: the weighted mean of its rewards' calibrations. The weights add up to 1.

    If one of the rewards has no calibration, the soup has none.
    """
    parts = [(weight, scale) for name, weight in weights.items() if (scale := scales[name]) is not None]
    if len(parts) < len(weights):
        return None
    return Calibration(
        mean=math.fsum(weight * scale.mean for weight, scale in parts),
        std=math.fsum(weight * scale.std for weight, scale in parts),
        temperature=math.fsum(weight * scale.temperature for weight, scale in parts),
    )


def weigh_rewards(raw: Raw, weights: Weights, scales: Scales) -> float:
    """Return the weighted reward, Σ wₒ · calibrated rewardₒ over the objectives o."""
    return math.fsum(weight * resolve_scale(scales[name]).standardise(raw[name]) for name, weight in weights.items())


def compute_preference(raw: Raw, other: Raw, weights: Weights, scales: Scales) -> float:
    """Return P(first over other) = σ(Σ wₒ · Δrawₒ / Tₒ), the Bradley-Terry model."""
    odds = (weight * resolve_scale(scales[name]).logit(raw[name], other[name]) for name, weight in weights.items())
    return compute_sigmoid(math.fsum(odds))


def find_unusable_reward(raw: Raw, scales: Scales) -> str | None:
    """Return the name of a reward that is not finite, raw or calibrated, as a float32; None if all are.

    Sums, differences and means of float32 numbers are finite in float64. So no number that is made of them overflows.
    """
    for name, value in raw.items():
        scaled = resolve_scale(scales[name]).standardise(value)
        if not (abs(value) <= LARGEST and abs(scaled) <= LARGEST):
            return name
    return None


def rank_rewards(rewards: Sequence[float]) -> list[int]:
    """Return the indices of rewards, highest first. Equal rewards keep their order."""
    return sorted(range(len(rewards)), key=lambda index: -rewards[index])


@dataclass(frozen=True)
class Verdict:
    """Which of several answers is preferred.

    Attributes:
        ranking: indices of the answers, best first.
        chosen: the best answer.
        rejected: the worst answer.
        margin: the difference of their weighted rewards; the log-odds if the answers were compared in pairs.
        probability: P(chosen over rejected).
        tie: whether the margin is too small for a preference.
    """

    ranking: list[int]
    chosen: int
    rejected: int
    margin: float
    probability: float
    tie: bool


def judge_answers(raws: Sequence[Raw], weights: Weights, scales: Scales, tie_margin: float = 0.0) -> Verdict:
    """Rank two or more answers. A margin of at most ``tie_margin`` is a tie."""
    rewards = [weigh_rewards(raw, weights, scales) for raw in raws]
    ranking = rank_rewards(rewards)
    chosen, rejected = ranking[0], ranking[-1]
    margin = rewards[chosen] - rewards[rejected]
    probability = compute_preference(raws[chosen], raws[rejected], weights, scales)
    return Verdict(ranking, chosen, rejected, margin, probability, margin <= tie_margin)


def build_preference_matrix(raws: Sequence[Raw], weights: Weights, scales: Scales) -> list[list[float]]:
    """Return the ``[N, N]`` matrix of P(i over j); 0.5 on the diagonal."""
    return [[compute_preference(raw, other, weights, scales) for other in raws] for raw in raws]
