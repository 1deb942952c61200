"""Rank correlation of rewards with ratings: Spearman's ρ and Kendall's τ-b, with 95 % intervals.

Over answers, the correlation is of reward and rating, over the answers to all prompts together. Over pairs, it is of
the gap in reward and the gap in rating between two answers to one prompt: better rated minus worse rated. It measures
whether a larger gap in rating goes with a larger gap in reward. Whether the better answer gets the larger reward is
measured by the accuracy instead. The intervals are percentiles of a bootstrap over prompts.
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
    """Compute Kendall's τ-b of two vectors, which takes ties into account; NaN if one of them is constant."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(kendalltau(x, y, method="asymptotic").statistic)  # the method decides only the p-value


MEASURES: dict[str, Measure] = {"spearman": compute_spearman, "kendall": compute_kendall}


def collect_ratings(records: Sequence[Record], name: str) -> list[list[float]]:
    """Collect the ratings of each record's answers: a row for each record, NaN where a rating is missing.

    Args:
        name: an attribute of the records, or ``scores`` for the scores that rank the answers.

    Raises:
        BadOption: no record has this rating.
    """
    rows = [list(record.scores if name == SCORES else record.attributes.get(name, ())) for record in records]
    if not any(rows):
        known = sorted({each for record in records for each in record.attributes})
        raise BadOption(f"--rating: no record has the rating {name!r}; use one of {', '.join([SCORES, *known])}")
    return [row or [math.nan] * len(record.answers) for row, record in zip(rows, records, strict=True)]


def compute_correlations(rewards: Rows, ratings: Rows) -> dict[str, Figure]:
    """Compute ``spearman`` and ``kendall`` over answers, and ``gap_spearman`` and ``gap_kendall`` over pairs.

    Args:
        rewards: a row for each prompt, a value for each answer.
        ratings: the ratings of the same answers, NaN where missing.
    """
    return {
        f"{kind}{name}": _figure(columns, measure)
        for kind, columns in (("", _answers(rewards, ratings)), ("gap_", _gaps(rewards, ratings)))
        for name, measure in MEASURES.items()
    }


def compare_correlations(first: Rows, second: Rows, ratings: Rows) -> dict[str, Figure]:
    """Compute the second model's correlations minus the first's. Each resample draws the same prompts for both."""
    found = {}
    for kind, columns in (("", _answers), ("gap_", _gaps)):
        one, other = columns(first, ratings), columns(second, ratings)
        for name, measure in MEASURES.items():
            found[f"{kind}{name}"] = _figure(one, measure, other)
    return found


@dataclass(frozen=True)
class _Columns:
    """Rewards and ratings ``[n]``, the number of the prompt that each belongs to, and the number of prompts."""

    rewards: Array
    ratings: Array
    owner: Places
    prompts: int

    def measure_resample(self, measure: Measure, places: Places) -> float:
        """Apply a measure to a resample of the prompts. ``places`` are their numbers, with repetitions."""
        often = np.bincount(places, minlength=self.prompts)[self.owner]
        return measure(np.repeat(self.rewards, often), np.repeat(self.ratings, often))


def _figure(columns: _Columns, measure: Measure, other: _Columns | None = None) -> Figure:
    """Estimate the measure of one model, or with ``other`` the other model's measure minus this one's."""

    def statistic(places: Places) -> float:
        value = columns.measure_resample(measure, places)
        return value if other is None else other.measure_resample(measure, places) - value

    return bootstrap_interval(statistic, columns.prompts, len(columns.rewards))


def _joined(parts: list[Array]) -> _Columns:
    """Join the tables ``[2, n]`` of all prompts. Row 0 has rewards, row 1 ratings."""
    rewards, ratings = np.concatenate([np.zeros((2, 0)), *parts], axis=1)
    return _Columns(rewards, ratings, np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts]), len(parts))


def _rows(rewards: Rows, ratings: Rows) -> list[Array]:
    """The table ``[2, n]`` of each prompt. Answers without a rating are left out."""
    rows = [np.array(pair, dtype=np.float64) for pair in zip(rewards, ratings, strict=True)]
    return [row[:, ~np.isnan(row).any(0)] for row in rows]


def _answers(rewards: Rows, ratings: Rows) -> _Columns:
    return _joined(_rows(rewards, ratings))


def _gaps(rewards: Rows, ratings: Rows) -> _Columns:
    """The gaps of all pairs with different ratings: the better rated answer's value minus the other's."""
    gaps = []
    for row in _rows(rewards, ratings):
        better, worse = np.nonzero(row[1][:, None] > row[1][None, :])
        gaps.append(row[:, better] - row[:, worse])
    return _joined(gaps)
