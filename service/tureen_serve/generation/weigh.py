"""Arithmetic on rewards: several objectives as one number, and two numbers as a preference. Pure.

Rewards are weighed on their calibrated scale, (raw − mean) / std, since raw ones have no common unit. Probabilities
use each objective's own Bradley-Terry temperature on raw differences, which need no origin.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tureen_core.calibration import Calibration, compute_sigmoid

Weights = Mapping[str, float]
Raw = Mapping[str, float]
Scales = Mapping[str, Calibration]

SUBTRACT = "rewards weigh 0 or more; ask for both and subtract them yourself"


def blend_scales(weights: Weights, scales: Scales) -> Calibration:
    """The scale of a souped reward model: the weighted mean of its parts' (on the simplex)."""
    return Calibration(
        mean=math.fsum(weight * scales[name].mean for name, weight in weights.items()),
        std=math.fsum(weight * scales[name].std for name, weight in weights.items()),
        temperature=math.fsum(weight * scales[name].temperature for name, weight in weights.items()),
    )


def weigh_rewards(raw: Raw, weights: Weights, scales: Scales) -> float:
    """Σ wₒ · calibrated rewardₒ."""
    return math.fsum(weight * scales[name].standardise(raw[name]) for name, weight in weights.items())


def compute_preference(raw: Raw, other: Raw, weights: Weights, scales: Scales) -> float:
    """P(first over other) = σ(Σ wₒ · Δrawₒ / Tₒ), Bradley-Terry."""
    return compute_sigmoid(
        math.fsum(weight * scales[name].logit(raw[name], other[name]) for name, weight in weights.items())
    )


def rank_rewards(rewards: Sequence[float]) -> list[int]:
    """Indices, best first; equals in the order given."""
    return sorted(range(len(rewards)), key=lambda index: -rewards[index])


@dataclass(frozen=True)
class Verdict:
    """Which of several answers is preferred.

    ``chosen`` is the best and ``rejected`` the worst; ``margin`` is the difference of their weighted rewards,
    ``probability`` that of chosen over rejected.
    """

    ranking: list[int]
    chosen: int
    rejected: int
    margin: float
    probability: float
    tie: bool


def judge_answers(raws: Sequence[Raw], weights: Weights, scales: Scales, tie_margin: float = 0.0) -> Verdict:
    """Rank two or more answers; it is a tie when the margin is at most ``tie_margin``."""
    rewards = [weigh_rewards(raw, weights, scales) for raw in raws]
    ranking = rank_rewards(rewards)
    chosen, rejected = ranking[0], ranking[-1]
    margin = rewards[chosen] - rewards[rejected]
    sure = compute_preference(raws[chosen], raws[rejected], weights, scales)
    return Verdict(ranking, chosen, rejected, margin, sure, margin <= tie_margin)


def build_preference_matrix(raws: Sequence[Raw], weights: Weights, scales: Scales) -> list[list[float]]:
    """P(i over j) for every pair, 0.5 on the diagonal."""
    return [[compute_preference(raw, other, weights, scales) for other in raws] for raw in raws]
