"""The figures that every evaluation has: who wins the pairs, by how much, how honestly, and whether length decides.

Pure. An answer has two numbers: its reward, which ranks it, and its logit, the reward over the temperature, whose
differences are the log-odds that the artifact itself states.
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
    """What an evaluation found.

    ``figures``: of all items. ``tables``: by title, then by row, the row's figures. ``notes``: what a reader must
    know. ``credits``: of each item, None where it has nothing to compare.
    """

    figures: Mapping[str, Figure]
    tables: Mapping[str, Mapping[str, Row]]
    credits: Sequence[float | None]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ComparedPairs:
    """All comparable pairs, flat: ``gaps`` of reward, ``logits`` their log-odds, ``longer`` the better answer's length
    over the worse one's minus one, relative to the longer; ``owner`` is the item that each belongs to."""

    gaps: Array
    logits: Array
    longer: Array
    owner: NDArray[np.intp]
    items: int

    def drawn(self, values: Array, places: Places) -> Array:
        """The values of the pairs of these items, as often as they are named."""
        often = np.bincount(places, minlength=self.items)
        return np.repeat(values, often[self.owner])

    def of(self, chosen: NDArray[np.bool_]) -> "ComparedPairs":
        """Some of them."""
        return ComparedPairs(
            self.gaps[chosen], self.logits[chosen], self.longer[chosen], self.owner[chosen], self.items
        )


def flatten_pairs(
    items: Sequence[Item], rewards: Sequence[Sequence[float]], logits: Sequence[Sequence[float]]
) -> ComparedPairs:
    """The pairs of all items, in their order."""
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
    """Figures of all items, by length, by file and by subset, where there are several of these."""
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
    """``accuracy`` over pairs (ties one half), ``best`` over items (best of N; ties share), mean ``margin``."""
    return {
        "accuracy": estimate_pair_accuracy(pairs),
        "best": estimate_share([rate for rate in map(_best, items, rewards) if rate == rate]),
        "margin": bootstrap_pairs(pairs, pairs.gaps, _mean),
    }


def estimate_pair_accuracy(pairs: ComparedPairs) -> Figure:
    """Share of pairs judged right, equal rewards one half.

    Wilson's interval where no item has more than one pair, else the bootstrap's over items.
    """
    return estimate_pair_share(pairs, credit_gaps(pairs.gaps))


def estimate_pair_share(pairs: ComparedPairs, credits: Array) -> Figure:
    """The mean of the pairs' credits in [0, 1], with the interval that :func:`estimate_pair_accuracy` names."""
    if len(np.unique(pairs.owner)) == len(credits):
        return estimate_share(credits.tolist())
    return bootstrap_pairs(pairs, credits, _mean)


def bootstrap_pairs(pairs: ComparedPairs, values: Array, statistic: Callable[[Array], float]) -> Figure:
    """A statistic of the pairs' values, bootstrapped over items."""
    return bootstrap_interval(lambda places: statistic(pairs.drawn(values, places)), pairs.items, len(values))


def credit_gaps(gaps: Array) -> Array:
    """1 for a pair judged right, 0 for a wrong one, one half for equal rewards."""
    return np.asarray((gaps > 0) + 0.5 * (gaps == 0), dtype=np.float64)


def credit_items(pairs: ComparedPairs) -> list[float | None]:
    """Each item's share of pairs judged right."""
    count = np.bincount(pairs.owner, minlength=pairs.items)
    won = np.bincount(pairs.owner, credit_gaps(pairs.gaps), minlength=pairs.items)
    return [float(w / n) if n else None for w, n in zip(won, count, strict=True)]


def compute_calibration_figures(pairs: ComparedPairs) -> dict[str, Figure]:
    """ECE, ACE and MCE over ten bins, of σ(margin) and, as ``…_scaled``, of the artifact's own probabilities."""
    found = {}
    for suffix, values in (("", pairs.gaps), ("_scaled", pairs.logits)):
        for name in ("ece", "ace", "mce"):
            found[f"{name}{suffix}"] = bootstrap_pairs(pairs, values, lambda gaps, name=name: _error(gaps, name))  # type: ignore[misc]
    return found


def correlate_lengths(items: Sequence[Item], rewards: Sequence[Sequence[float]]) -> dict[str, Figure]:
    """Pearson's correlation of reward with an answer's length in characters, both centred within their prompt."""
    r, n = pad_rows(rewards), pad_rows([item.lengths for item in items])
    return {
        "length_correlation": bootstrap_interval(
            lambda places: compute_length_correlation(r[places], n[places]), len(items)
        )
    }


def tabulate_by_length(pairs: ComparedPairs) -> dict[str, Row]:
    """Accuracy where the better answer is longer, shorter, or within a tenth as long as the other."""
    parts = {
        LONGER: pairs.longer > ALIKE,
        SHORTER: pairs.longer < -ALIKE,
        EVEN: np.abs(pairs.longer) <= ALIKE,
    }
    return {
        name: {"accuracy": estimate_pair_accuracy(pairs.of(chosen))} for name, chosen in parts.items() if chosen.any()
    }


def tabulate_by_name(
    items: Sequence[Item], rewards: Sequence[Sequence[float]], pairs: ComparedPairs, names: Sequence[str]
) -> dict[str, Row]:
    """Accuracy, best-of-N rate and margin of the items of each name, in the order in which names first appear."""
    rows: dict[str, Row] = {}
    for name in dict.fromkeys(names):
        inside = np.array([each == name for each in names])
        mine = [place for place, chosen in enumerate(inside) if chosen]
        part = renumber_pairs(pairs.of(inside[pairs.owner]), mine)
        rows[name or "(none)"] = compute_ranking_figures(
            [items[place] for place in mine], [rewards[place] for place in mine], part
        )
    return rows


def tabulate_by_rating(items: Sequence[Item], rewards: Sequence[Sequence[float]]) -> dict[str, Row]:
    """Rank correlations with every rating that answers have; with the scores where these are more than two levels."""
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
    """The same pairs, their owners counted among ``places`` only."""
    owner = np.searchsorted(np.array(places), pairs.owner)
    return ComparedPairs(pairs.gaps, pairs.logits, pairs.longer, owner, len(places))


def _best(item: Item, rewards: Sequence[float]) -> float:
    return compute_best_rate(np.array([rewards], dtype=np.float64), np.array([item.scores], dtype=np.float64))


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")


def _error(gaps: Array, name: str) -> float:
    found: CalibrationErrors = compute_calibration_errors(gaps)
    return float(getattr(found, name)) if gaps.size else float("nan")
