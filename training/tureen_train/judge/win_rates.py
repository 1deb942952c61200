"""Win rates of methods from judgements. Pure.

A judgement's share above ½ is a win of the first answer, below ½ a loss, and ½ a tie, which counts half a win for both.
So the rates of two methods sum to 1, and a swap of the methods swaps them. What has no verdict counts for nobody.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tureen_train.judge.comparisons import Judgement
from tureen_train.measures.intervals import Figure, Places, bootstrap_interval, estimate_share
from tureen_train.measures.metrics import Array


@dataclass(frozen=True)
class Tally:
    """How often the first of two methods won, tied and lost, and how often there was no verdict."""

    wins: int
    ties: int
    losses: int
    failed: int

    @property
    def judged(self) -> int:
        """The number of pairs with a verdict."""
        return self.wins + self.ties + self.losses

    @property
    def turned(self) -> "Tally":
        """The tally of the second method."""
        return Tally(self.losses, self.ties, self.wins, self.failed)


def count_wins(judged: Sequence[Judgement]) -> Tally:
    """Count what judgements say of the first answers."""
    credits = credit_first(judged)
    wins, losses = int((credits == 1).sum()), int((credits == 0).sum())
    return Tally(wins, int((credits == 0.5).sum()), losses, int(np.isnan(credits).sum()))


def credit_first(judged: Sequence[Judgement]) -> Array:
    """Return the first answer's credit in each judgement: 1, ½ or 0; NaN without a verdict."""
    shares = np.array([math.nan if each.share is None else each.share for each in judged], dtype=np.float64)
    return np.where(np.isnan(shares), np.nan, (np.sign(shares - 0.5) + 1) / 2)


def estimate_win_rate(judged: Sequence[Judgement]) -> Figure:
    """Compute the first method's win rate, with Wilson's interval; NaN without a verdict.

    Args:
        judged: one judgement for each prompt.
    """
    credits = credit_first(judged)
    return estimate_share(credits[~np.isnan(credits)].tolist())


def estimate_decided_rate(judged: Sequence[Judgement]) -> Figure:
    """Compute the first method's share of the pairs that are no ties, as RLPHF reports it; NaN if all are ties."""
    credits = credit_first(judged)
    return estimate_share(credits[(credits == 0) | (credits == 1)].tolist())


def estimate_method_rates(
    names: Sequence[str], judged: Mapping[tuple[str, int, int], Sequence[Judgement]]
) -> dict[str, Figure]:
    """Compute each method's win rate: the mean over its opponents and over the criteria, as RLPHF's (arXiv 2310.11564).

    Each pairing counts the same, however many of its pairs have a verdict. The interval is that of a bootstrap over
    prompts, whose judgements by all criteria and against all opponents are drawn together.

    Args:
        judged: by criterion and the numbers of two methods, one judgement for each prompt.
    """
    rates = {}
    for number, name in enumerate(names):
        columns = []
        for (_, one, other), own in judged.items():
            if number in (one, other):
                credits = credit_first(own)
                columns.append(credits if number == one else 1 - credits)
        table = np.array(columns, dtype=np.float64).T
        rates[name] = _estimate_columns(table)
    return rates


def _estimate_columns(table: Array) -> Figure:
    def statistic(places: Places) -> float:
        return _mean_of_columns(table[places])

    return bootstrap_interval(statistic, len(table), int((~np.isnan(table)).sum()))


def _mean_of_columns(credits: Array) -> float:
    """The mean of the columns' means, of the credits that are known; NaN if a column has none."""
    known = ~np.isnan(credits)
    if not known.any(0).all():
        return math.nan
    return float((np.where(known, credits, 0).sum(0) / known.sum(0)).mean())
