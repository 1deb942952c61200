"""Judge several answers with rewards that compare two: choose the comparisons, and make a verdict of them. Pure.

A game is a generator. It yields the pairs of a round, takes P(first over second) of each, and returns the verdict.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from tureen_core.calibration import compute_sigmoid, resolve_scale
from tureen_core.tournament import compute_log_odds, list_pairs, rank_round_robin, run_knockout
from tureen_serve.generation.weigh import Scales, Verdict

Pair = tuple[int, int]
OrderProbabilities = tuple[float, float]
Probabilities = list[float]


@dataclass(frozen=True)
class PairwiseVerdict:
    """A verdict, and P(i over j) of all answers if every pair was compared."""

    verdict: Verdict
    matrix: list[list[float]] | None = None


Rounds = Generator[list[Pair], Probabilities, PairwiseVerdict]


def play_round_robin(count: int, tie_margin: float) -> Rounds:
    """Compare all pairs in one round, and rank the answers by their mean probability of winning."""
    found = rank_round_robin(count, (yield list_pairs(count)))
    chosen, rejected = found.ranking[0], found.ranking[-1]
    probability = found.wins[chosen][rejected]
    return PairwiseVerdict(_verdict(found.ranking, rejected, probability, tie_margin), found.wins)


def play_knockout(count: int, tie_margin: float) -> Rounds:
    """Compare the winner so far with the next answer, one comparison a round (as RLHFlow does for N answers)."""
    game = run_knockout(count)
    met: list[tuple[Pair, float]] = []
    asked = next(game)
    while True:
        (probability,) = yield [asked]
        met.append((asked, probability))
        try:
            asked = game.send(probability)
        except StopIteration as end:
            return _rank_knockout(end.value, met, tie_margin)


def _rank_knockout(winner: int, met: Sequence[tuple[Pair, float]], tie_margin: float) -> PairwiseVerdict:
    """Rank the winner first, then the losers of each round from the last round to the first.

    The rejected answer is the last one that lost to the winner.
    """
    losers = [second if first_wins >= 0.5 else first for (first, second), first_wins in reversed(met)]
    rejected = next(loser for ((pair, _), loser) in zip(reversed(met), losers, strict=True) if winner in pair)
    probability = next(
        first_wins if pair[0] == winner else 1 - first_wins for pair, first_wins in reversed(met) if winner in pair
    )
    return PairwiseVerdict(_verdict([winner, *losers], rejected, probability, tie_margin))


def _verdict(ranking: list[int], rejected: int, probability: float, tie_margin: float) -> Verdict:
    margin = compute_log_odds(probability)
    return Verdict(ranking, ranking[0], rejected, margin, probability, margin <= tie_margin)


def compute_order_probabilities(
    forward: Mapping[str, float],
    backward: Mapping[str, float],
    weights: Mapping[str, float],
    scales: Scales,
) -> OrderProbabilities:
    """Compute P(first over second) with the first answer shown first, then with it shown second.

    Several rewards are combined as σ(Σ w · logit / T).

    Args:
        forward: reward → log-odds, with the first answer shown first.
        backward: reward → log-odds, with the second answer shown first.
    """
    there, back = (
        math.fsum(weight * odds[name] / resolve_scale(scales[name]).temperature for name, weight in weights.items())
        for odds in (forward, backward)
    )
    return compute_sigmoid(there), 1 - compute_sigmoid(back)  # for equal answers the two add up to exactly 1


def average_orders(found: OrderProbabilities) -> float:
    """Return the mean over both orders (RLHFlow, arXiv 2405.07863)."""
    return (found[0] + found[1]) / 2


def build_order_matrix(count: int, met: Mapping[Pair, OrderProbabilities]) -> list[list[float]]:
    """Build the ``[N, N]`` matrix of P(i over j) with answer i shown first; ½ on the diagonal."""
    matrix = [[0.5] * count for _ in range(count)]
    for (i, j), (there, back) in met.items():
        matrix[i][j], matrix[j][i] = there, 1 - back
    return matrix
