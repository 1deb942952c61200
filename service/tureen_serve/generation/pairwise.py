"""Verdicts by rewards that compare answers: which comparisons to ask, and what they make of several answers. Pure."""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

from tureen_core.calibration import Calibration, compute_sigmoid
from tureen_core.tournament import compute_log_odds, list_pairs, rank_round_robin, run_knockout
from tureen_serve.generation.weigh import Verdict

Pair = tuple[int, int]
OrderProbabilities = tuple[float, float]
Probabilities = list[float]


@dataclass(frozen=True)
class PairwiseVerdict:
    """A verdict, and where all were compared the probability of each over each."""

    verdict: Verdict
    matrix: list[list[float]] | None = None


Rounds = Generator[list[Pair], Probabilities, PairwiseVerdict]


def play_round_robin(count: int, tie_margin: float) -> Rounds:
    """One round of all comparisons; ranked by the mean probability of winning."""
    found = rank_round_robin(count, (yield list_pairs(count)))
    chosen, rejected = found.ranking[0], found.ranking[-1]
    sure = found.wins[chosen][rejected]
    return PairwiseVerdict(_verdict(found.ranking, rejected, sure, tie_margin), found.wins)


def play_knockout(count: int, tie_margin: float) -> Rounds:
    """The winner so far meets the next answer, a comparison a round (RLHFlow's way with N answers)."""
    game = run_knockout(count)
    met: list[tuple[Pair, float]] = []
    asked = next(game)
    while True:
        (sure,) = yield [asked]
        met.append((asked, sure))
        try:
            asked = game.send(sure)
        except StopIteration as end:
            return _rank_knockout(end.value, met, tie_margin)


def _rank_knockout(winner: int, met: Sequence[tuple[Pair, float]], tie_margin: float) -> PairwiseVerdict:
    """The winner, then who lost to it, the last one first, then who lost before."""
    losers = [second if sure >= 0.5 else first for (first, second), sure in reversed(met)]
    rejected = next(loser for ((pair, _), loser) in zip(reversed(met), losers, strict=True) if winner in pair)
    sure = next(sure if pair[0] == winner else 1 - sure for pair, sure in reversed(met) if winner in pair)
    return PairwiseVerdict(_verdict([winner, *losers], rejected, sure, tie_margin))


def _verdict(ranking: list[int], rejected: int, sure: float, tie_margin: float) -> Verdict:
    margin = compute_log_odds(sure)
    return Verdict(ranking, ranking[0], rejected, margin, sure, margin <= tie_margin)


def compute_order_probabilities(
    forward: Mapping[str, float],
    backward: Mapping[str, float],
    weights: Mapping[str, float],
    scales: Mapping[str, Calibration],
) -> OrderProbabilities:
    """P(first over second) with the first shown first, and with it shown second; of several rewards σ(Σ w · logit / T).

    Args:
        forward: log-odds by reward, read in this order.
        backward: those read with the second answer in the first place.
    """
    there, back = (
        math.fsum(weight * odds[name] / scales[name].temperature for name, weight in weights.items())
        for odds in (forward, backward)
    )
    return compute_sigmoid(there), 1 - compute_sigmoid(back)  # so that equal answers add up to 1 exactly


def average_orders(found: OrderProbabilities) -> float:
    """The mean over both orders (RLHFlow's, arXiv 2405.07863)."""
    return (found[0] + found[1]) / 2


def build_order_matrix(count: int, met: Mapping[Pair, OrderProbabilities]) -> list[list[float]]:
    """``[N, N]``: P(i over j) where i was shown first, of all comparisons; ½ on the diagonal."""
    matrix = [[0.5] * count for _ in range(count)]
    for (i, j), (there, back) in met.items():
        matrix[i][j], matrix[j][i] = there, 1 - back
    return matrix
