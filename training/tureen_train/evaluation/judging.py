"""The figures that every evaluation has: accuracy, margins, calibration and length bias. Pure.

An answer has a reward, which ranks it, and a logit, its reward divided by the temperature. The difference of two logits
is the log-odds that the artifact gives for the first answer to be preferred.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tureen_train.evaluation.items import Item
from tureen_train.measures.correlation import compute_correlations
from tureen_train.measures.intervals import Figure, Places, bootstrap_interval, estimate_share
from tureen_train.measures.metrics import (
    Array,
    CalibrationErrors,
    compute_best_rate,
    compute_calibration_errors,
    compute_length_correlation,
    pad_rows,
)

Row = Mapping[str, Figure]
ALIKE = 0.1
LONGER, SHORTER, EVEN = "better answer longer", "better answer shorter", "about as long"


@dataclass(frozen=True)
class Findings:
    """The figures of an evaluation.

    Attributes:
        figures: the figures of all items, by name.
        tables: the breakdowns by title, each a mapping from the row's name to its figures.
        credits: each item's credit in [0, 1]; None if the item has nothing to compare.
        notes: remarks for the report.
    """

    figures: Mapping[str, Figure]
    tables: Mapping[str, Mapping[str, Row]]
    credits: Sequence[float | None]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ComparedPairs:
    """All comparable pairs ``[P]``.

    Attributes:
        gaps: the better answer's reward minus the worse one's.
        logits: the same of the logits.
        longer: the better answer's length minus the worse one's, divided by the larger of the two.
        owner: the number of the item that each pair belongs to.
        items: the number of items.
    """

    gaps: Array
    logits: Array
    longer: Array
    owner: NDArray[np.intp]
    items: int

    def resample(self, values: Array, places: Places) -> Array:
        """Return the values of the pairs of a resample. ``places`` are the drawn items, with repetitions."""
        often = np.bincount(places, minlength=self.items)
        return np.repeat(values, often[self.owner])

    def select(self, chosen: NDArray[np.bool_]) -> "ComparedPairs":
        """Return the pairs for which ``chosen [P]`` is true."""
        return ComparedPairs(
            self.gaps[chosen], self.logits[chosen], self.longer[chosen], self.owner[chosen], self.items
        )


def flatten_pairs(
    items: Sequence[Item], rewards: Sequence[Sequence[float]], logits: Sequence[Sequence[float]]
) -> ComparedPairs:
    """Collect the comparable pairs of all items, in the items' order."""
    found = [
        (reward[i] - reward[j], logit[i] - logit[j], _longer(item.lengths[i], item.lengths[j]), place)
        for place, (item, reward, logit) in enumerate(zip(items, rewards, logits, strict=True))
        for i, j in item.pairs
    ]
    gaps, odds, longer, owner = np.array(found, dtype=np.float64).reshape(-1, 4).T
    return ComparedPairs(gaps, odds, longer, owner.astype(np.intp), len(items))


def _longer(better: int, worse: int) -> float:
    return (better - worse) / max(better, worse, 1)


def judge_items(
    items: Sequence[Item], rewards: Sequence[Sequence[float]], logits: Sequence[Sequence[float]]
) -> Findings:
    """Compute the figures of all items, and breakdowns by length, and by file and subset if there are several."""
    pairs = flatten_pairs(items, rewards, logits)
    tables: dict[str, Mapping[str, Row]] = {"length": tabulate_by_length(pairs)}
    for title, names in (("file", [item.file for item in items]), ("subset", [item.subset for item in items])):
        if len(set(names)) > 1:
            tables[title] = tabulate_by_name(items, rewards, pairs, names)
    if rated := tabulate_by_rating(items, rewards):
        tables["rating"] = rated
    figures = {
        **compute_ranking_figures(items, rewards, pairs),
        **compute_calibration_figures(pairs),
        **correlate_lengths(items, rewards),
    }
    return Findings(figures, tables, credit_items(pairs))


def compute_ranking_figures(
    items: Sequence[Item], rewards: Sequence[Sequence[float]], pairs: ComparedPairs
) -> dict[str, Figure]:
    """Compute ``accuracy`` over pairs, ``best`` (best of N) over items, and the mean ``margin``."""
    return {
        "accuracy": estimate_pair_accuracy(pairs),
        "best": estimate_share([rate for rate in map(_best, items, rewards) if rate == rate]),
        "margin": bootstrap_pairs(pairs, pairs.gaps, _mean),
    }


def estimate_pair_accuracy(pairs: ComparedPairs) -> Figure:
    """Compute the share of pairs judged right; equal rewards count ½.

    The interval is Wilson's if no item has more than one pair, else that of the bootstrap over items.
    """
    return estimate_pair_share(pairs, credit_gaps(pairs.gaps))


def estimate_pair_share(pairs: ComparedPairs, credits: Array) -> Figure:
    """Compute the mean of the pairs' credits in [0, 1]. The interval is as in :func:`estimate_pair_accuracy`."""
    if len(np.unique(pairs.owner)) == len(credits):
        return estimate_share(credits.tolist())
    return bootstrap_pairs(pairs, credits, _mean)


def bootstrap_pairs(pairs: ComparedPairs, values: Array, statistic: Callable[[Array], float]) -> Figure:
    """Compute a statistic of the pairs' values, with the interval of a bootstrap over items."""
    return bootstrap_interval(lambda places: statistic(pairs.resample(values, places)), pairs.items, len(values))


def credit_gaps(gaps: Array) -> Array:
    """Return the credit of each pair: 1 if judged right, 0 if judged wrong, ½ for equal rewards."""
    return np.asarray((gaps > 0) + 0.5 * (gaps == 0), dtype=np.float64)


def credit_items(pairs: ComparedPairs) -> list[float | None]:
    """Return each item's share of pairs judged right; None if it has no comparable pair."""
    count = np.bincount(pairs.owner, minlength=pairs.items)
    won = np.bincount(pairs.owner, credit_gaps(pairs.gaps), minlength=pairs.items)
    return [float(w / n) if n else None for w, n in zip(won, count, strict=True)]


def compute_calibration_figures(pairs: ComparedPairs) -> dict[str, Figure]:
    """Compute ECE, ACE and MCE over ten bins, of σ(margin) and, as ``…_scaled``, of the artifact's probabilities."""
    found = {}
    for suffix, values in (("", pairs.gaps), ("_scaled", pairs.logits)):
        for name in ("ece", "ace", "mce"):
            found[f"{name}{suffix}"] = bootstrap_pairs(pairs, values, lambda gaps, name=name: _error(gaps, name))  # type: ignore[misc]
    return found


def correlate_lengths(items: Sequence[Item], rewards: Sequence[Sequence[float]]) -> dict[str, Figure]:
    """Compute Pearson's correlation of reward and length in characters, both centred within each prompt."""
    r, n = pad_rows(rewards), pad_rows([item.lengths for item in items])
    return {
        "length_correlation": bootstrap_interval(
            lambda places: compute_length_correlation(r[places], n[places]), len(items)
        )
    }


def tabulate_by_length(pairs: ComparedPairs) -> dict[str, Row]:
    """Compute the accuracy on pairs whose better answer is longer, shorter, or within 10 % of the length."""
    parts = {
        LONGER: pairs.longer > ALIKE,
        SHORTER: pairs.longer < -ALIKE,
        EVEN: np.abs(pairs.longer) <= ALIKE,
    }
    return {
        name: {"accuracy": estimate_pair_accuracy(pairs.select(chosen))}
        for name, chosen in parts.items()
        if chosen.any()
    }


def tabulate_by_name(
    items: Sequence[Item], rewards: Sequence[Sequence[float]], pairs: ComparedPairs, names: Sequence[str]
) -> dict[str, Row]:
    """Compute accuracy, best-of-N rate and margin for each name. ``names`` has one for each item."""
    rows: dict[str, Row] = {}
    for name in dict.fromkeys(names):
        inside = np.array([each == name for each in names])
        mine = [place for place, chosen in enumerate(inside) if chosen]
        part = renumber_pairs(pairs.select(inside[pairs.owner]), mine)
        rows[name or "(none)"] = compute_ranking_figures(
            [items[place] for place in mine], [rewards[place] for place in mine], part
        )
    return rows


def tabulate_by_rating(items: Sequence[Item], rewards: Sequence[Sequence[float]]) -> dict[str, Row]:
    """Compute rank correlations with each rating, and with the scores if these have more than two different values."""
    names = dict.fromkeys(name for item in items for name in item.attributes)
    rows: dict[str, Row] = {
        name: compute_correlations(rewards, [_ratings(item, name) for item in items]) for name in names
    }
    if len({score for item in items for score in item.scores if score == score}) > 2:
        rows = {"scores": compute_correlations(rewards, [item.scores for item in items]), **rows}
    return rows


def _ratings(item: Item, name: str) -> Sequence[float]:
    return item.attributes.get(name, [float("nan")] * len(item.scores))


def renumber_pairs(pairs: ComparedPairs, places: Sequence[int]) -> ComparedPairs:
    """Return the same pairs with the owners renumbered: item ``places[k]`` becomes k."""
    owner = np.searchsorted(np.array(places), pairs.owner)
    return ComparedPairs(pairs.gaps, pairs.logits, pairs.longer, owner, len(places))


def _best(item: Item, rewards: Sequence[float]) -> float:
    return compute_best_rate(np.array([rewards], dtype=np.float64), np.array([item.scores], dtype=np.float64))


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")


def _error(gaps: Array, name: str) -> float:
    found: CalibrationErrors = compute_calibration_errors(gaps)
    return float(getattr(found, name)) if gaps.size else float("nan")
