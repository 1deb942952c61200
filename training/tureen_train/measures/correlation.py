"""How well rewards rank answers as somebody's ratings do: Spearman's ρ and Kendall's τ-b, with 95 % intervals.

Over answers: all of them together, across prompts. Over pairs: the gap between two answers of one prompt against the
gap between their ratings, the better rated one first, so that it says whether a larger difference gets a larger gap;
who is right is not in it, accuracy says that. Intervals are percentiles of a bootstrap over prompts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, rankdata

from tureen.records.schema import BadOption, Record
from tureen_train.measures.intervals import Figure, Places, bootstrap_interval
from tureen_train.measures.metrics import Array

Rows = Sequence[Sequence[float]]
Measure = Callable[[Array, Array], float]
SCORES = "scores"


def compute_pearson(x: Array, y: Array) -> float:
    """Compute Pearson's correlation of two vectors; NaN if one of them is constant."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def compute_spearman(x: Array, y: Array) -> float:
    """Compute Spearman's rank correlation of two vectors, with mean ranks for ties; NaN if one of them is constant."""
    return compute_pearson(rankdata(x), rankdata(y))


def compute_kendall(x: Array, y: Array) -> float:
    """Kendall's τ-b, which takes ties into account; NaN where either never varies."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(kendalltau(x, y, method="asymptotic").statistic)  # the method is of a p-value that nobody reads


MEASURES: dict[str, Measure] = {"spearman": compute_spearman, "kendall": compute_kendall}


def collect_ratings(records: Sequence[Record], name: str) -> list[list[float]]:
    """The ratings of every record's answers, NaN where it has none.

    Args:
        name: an attribute of the records, or ``scores``: what they are ranked by.

    Raises:
        BadOption: no record has it.
    """
    rows = [list(record.scores if name == SCORES else record.attributes.get(name, ())) for record in records]
    if not any(rows):
        known = sorted({each for record in records for each in record.attributes})
        raise BadOption(f"no record is rated by {name!r}; there is {', '.join([SCORES, *known])}")
    return [row or [math.nan] * len(record.answers) for row, record in zip(rows, records, strict=True)]


def compute_correlations(rewards: Rows, ratings: Rows) -> dict[str, Figure]:
    """``spearman`` and ``kendall`` over answers, ``gap_spearman`` and ``gap_kendall`` over pairs.

    Args:
        rewards: a row a prompt.
        ratings: of the same answers, NaN where there is none.
    """
    return {
        f"{kind}{name}": _figure(columns, measure)
        for kind, columns in (("", _answers(rewards, ratings)), ("gap_", _gaps(rewards, ratings)))
        for name, measure in MEASURES.items()
    }


def compare_correlations(first: Rows, second: Rows, ratings: Rows) -> dict[str, Figure]:
    """The second model's :func:`compute_correlations` minus the first's, both drawn on the same prompts."""
    found = {}
    for kind, columns in (("", _answers), ("gap_", _gaps)):
        one, other = columns(first, ratings), columns(second, ratings)
        for name, measure in MEASURES.items():
            found[f"{kind}{name}"] = _figure(one, measure, other)
    return found


@dataclass(frozen=True)
class _Columns:
    """Rewards and ratings side by side, the number of each one's prompt, and how many prompts there are."""

    rewards: Array
    ratings: Array
    owner: Places
    prompts: int

    def measured(self, measure: Measure, places: Places) -> float:
        """A measure of what these prompts have, as often as they are named."""
        often = np.bincount(places, minlength=self.prompts)[self.owner]
        return measure(np.repeat(self.rewards, often), np.repeat(self.ratings, often))


def _figure(columns: _Columns, measure: Measure, other: _Columns | None = None) -> Figure:
    """Of one model; with another's columns, theirs minus this one's."""

    def statistic(places: Places) -> float:
        value = columns.measured(measure, places)
        return value if other is None else other.measured(measure, places) - value

    return bootstrap_interval(statistic, columns.prompts, len(columns.rewards))


def _joined(parts: list[Array]) -> _Columns:
    """Of each prompt's ``[2, n]``, rewards over ratings."""
    rewards, ratings = np.concatenate([np.zeros((2, 0)), *parts], axis=1)
    return _Columns(rewards, ratings, np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts]), len(parts))


def _rows(rewards: Rows, ratings: Rows) -> list[Array]:
    """Each prompt's answers that are rated: ``[2, n]``."""
    rows = [np.array(pair, dtype=np.float64) for pair in zip(rewards, ratings, strict=True)]
    return [row[:, ~np.isnan(row).any(0)] for row in rows]


def _answers(rewards: Rows, ratings: Rows) -> _Columns:
    return _joined(_rows(rewards, ratings))


def _gaps(rewards: Rows, ratings: Rows) -> _Columns:
    """Pairs of one prompt that are rated differently: the better rated answer's minus the other's."""
    gaps = []
    for row in _rows(rewards, ratings):
        better, worse = np.nonzero(row[1][:, None] > row[1][None, :])
        gaps.append(row[:, better] - row[:, worse])
    return _joined(gaps)
