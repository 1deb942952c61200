"""From comparisons of two answers to the best of N: both orders into one verdict, knock-out, round robin. Pure.

A pairwise model says the log-odds that the first of two answers is better, and leans to a side. So each comparison is
asked in both orders; here stands what is made of the two numbers, and which comparisons are asked.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from tureen_core.calibration import compute_sigmoid

Beats = Callable[[int, int], float]
Matches = Generator[tuple[int, int], float, int]
SURE = 1e-9


def compute_log_odds(sure: float) -> float:
    """ln p / (1 − p) of a probability, which is kept 1e-9 off 0 and 1 so that it is finite."""
    kept = min(max(sure, SURE), 1 - SURE)
    return math.log(kept / (1 - kept))


def compute_preference(forward: float, backward: float, temperature: float = 1.0) -> float:
    """Probability that the first answer is better: the mean over both orders (RLHFlow, arXiv 2405.07863).

    Exactly ½ says that the two are equal; above ½, but for rounding near 1, that ``forward`` is above ``backward``.

    Args:
        temperature: divides both log-odds; the published model has 1, an artifact's is fitted on held-out pairs.
    """
    if forward == backward:
        return 0.5
    return (compute_sigmoid(forward / temperature) + compute_sigmoid(-backward / temperature)) / 2


def run_knockout(count: int) -> Matches:
    """RLHFlow's knock-out as the comparisons that it asks for, one after the other; N − 1 of them.

    The winner so far meets the next answer; ½ keeps the winner. A generator, so that whoever compares may wait,
    and run many at once: it yields ``(i, j)``, is sent the probability that i is better, and returns the winner.

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
    """Everybody against everybody.

    Attributes:
        ranking: the answers, best first; equals in their order.
        strength: of each answer, its mean probability of beating another one; ½ for a lone one.
        wins: ``wins[i][j]``, the probability that i beats j; ½ on the diagonal.
    """

    ranking: list[int]
    strength: list[float]
    wins: list[list[float]]


def list_pairs(count: int) -> list[tuple[int, int]]:
    """The comparisons of a round robin: N (N − 1) / 2."""
    return [(first, second) for first in range(count) for second in range(first + 1, count)]


def rank_round_robin(count: int, probabilities: Sequence[float] | Beats) -> Standing:
    """Rank N answers by their mean probability of winning.

    Args:
        probabilities: how likely the first is better, for each of :func:`list_pairs` in order, or a function of a pair.

    Raises:
        ValueError: too few or too many probabilities, or one that is not 0 to 1.
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
