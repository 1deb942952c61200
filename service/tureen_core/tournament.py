"""Tournaments: the best of N answers by comparisons of two, as a knock-out or a round robin. Pure.

A pairwise model gives the log-odds that the first of two answers is better, and prefers one position. So each pair is
compared in both orders. This module combines the two numbers and chooses the pairs to compare.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from tureen_core.calibration import compute_sigmoid

Beats = Callable[[int, int], float]
Matches = Generator[tuple[int, int], float, int]
SURE = 1e-9


def compute_log_odds(sure: float) -> float:
    """Compute ln p / (1 − p) of a probability. It is clamped to [1e-9, 1 − 1e-9], so that the result is finite."""
    kept = min(max(sure, SURE), 1 - SURE)
    return math.log(kept / (1 - kept))


def compute_preference(forward: float, backward: float, temperature: float = 1.0) -> float:
    """Compute the probability that the first answer is better: the mean over both orders (RLHFlow, arXiv 2405.07863).

    The result is exactly ½ if the log-odds are equal, and above ½ if ``forward`` is above ``backward``.

    Args:
        forward: the log-odds that the first answer is better, asked with the first answer in first place.
        backward: the log-odds that the second answer is better, asked with the second answer in first place.
        temperature: divides both log-odds. The published model has 1; an artifact's is fitted on held-out pairs.
    """
    if forward == backward:
        return 0.5
    return (compute_sigmoid(forward / temperature) + compute_sigmoid(-backward / temperature)) / 2


def run_knockout(count: int) -> Matches:
    """Run RLHFlow's knock-out: the winner so far is compared with the next answer, N − 1 times; ½ keeps the winner.

    This is a generator, so that a caller can wait for each comparison and run several knock-outs at once. It yields
    the pair ``(i, j)``, expects the probability that i is better by ``send``, and returns the winner.

    Raises:
        ValueError: there is no answer, or a probability is not 0 to 1.
    """
    if count < 1:
        raise ValueError("a knock-out needs at least one answer")
    winner = 0
    for challenger in range(1, count):
        if _checked((yield winner, challenger)) < 0.5:
            winner = challenger
    return winner


@dataclass(frozen=True)
class Standing:
    """The result of a round robin.

    Attributes:
        ranking: the answers, best first; equal answers keep their order.
        strength: for each answer, its mean probability of beating another one; ½ if there is only one answer.
        wins: ``wins[i][j]`` is the probability that i beats j; ½ on the diagonal.
    """

    ranking: list[int]
    strength: list[float]
    wins: list[list[float]]


def list_pairs(count: int) -> list[tuple[int, int]]:
    """List the N (N − 1) / 2 pairs of a round robin."""
    return [(first, second) for first in range(count) for second in range(first + 1, count)]


def rank_round_robin(count: int, probabilities: Sequence[float] | Beats) -> Standing:
    """Rank N answers by their mean probability of winning.

    Args:
        probabilities: the probability that the first of a pair is better: one for each of :func:`list_pairs`, in
            order, or a function of the pair.

    Raises:
        ValueError: the number of probabilities is wrong, or one is not 0 to 1.
    """
    asked = list_pairs(count)
    found = [probabilities(*pair) for pair in asked] if callable(probabilities) else list(probabilities)
    wins = [[0.5] * count for _ in range(count)]
    for (first, second), value in zip(asked, found, strict=True):
        wins[first][second] = _checked(value)
        wins[second][first] = 1 - value
    strength = [
        math.fsum(value for j, value in enumerate(row) if j != i) / (count - 1) if count > 1 else 0.5
        for i, row in enumerate(wins)
    ]
    return Standing(sorted(range(count), key=lambda index: -strength[index]), strength, wins)


def _checked(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"a probability is 0 to 1, not {value}")
    return value
