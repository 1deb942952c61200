"""How far apart a reward model holds the answers of a pair, and how that stands to how alike they are.

PCRM (arXiv 2404.00978) bounds a pair's gap by a cap δ of the answers' similarity; δ/2 is where its loss is least.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tureen_train.measures.correlation import compute_spearman
from tureen_train.measures.intervals import Figure, Places, bootstrap_interval
from tureen_train.measures.metrics import Array, compute_accuracy


def select_pair_caps(caps: ArrayLike, scores: ArrayLike) -> Array:
    """δ of every pair that :func:`tureen_train.measures.metrics.compute_gaps` gives, in its order.

    Args:
        caps: ``[B, N, N]``.
        scores: ``[B, N]``.
    """
    s = np.asarray(scores, dtype=np.float64)
    return np.asarray(np.asarray(caps, dtype=np.float64)[s[:, :, None] > s[:, None, :]])


def compute_cap_figures(gaps: Array, caps: Array) -> dict[str, float]:
    """``cap``: the mean δ, twice the gap that is wanted; ``over_cap``: the share of gaps above their δ."""
    if not gaps.size:
        return {"cap": math.nan, "over_cap": math.nan}
    return {"cap": float(caps.mean()), "over_cap": float(np.mean(gaps > caps))}


@dataclass(frozen=True)
class Margins:
    """Comparable pairs, flat.

    Args:
        sources: where the record of each stands.
        owner: the number of each one's prompt.
        gaps: the better answer's reward minus the worse one's.
        similarity: by measure (``length_ratio``, ``cosine``), s of each in [0, 1].
        caps: δ of each; None without a constraint.
        prompts: how many there are.
    """

    sources: Sequence[str]
    owner: NDArray[np.intp]
    gaps: Array
    similarity: Mapping[str, Array]
    caps: Array | None
    prompts: int

    def figures(self) -> dict[str, Figure]:
        """Accuracy, mean and spread of the gaps, how they stand to the caps, and Spearman's with each similarity.

        ``right_margin`` is the mean of positive gaps only, what PCRM's own script tells.
        """
        found = {
            "accuracy": self._figure(compute_accuracy, self.gaps),
            "margin": self._figure(_mean, self.gaps),
            "margin_std": self._figure(_spread, self.gaps),
            "right_margin": self._figure(lambda gaps: _mean(gaps[gaps > 0]), self.gaps),
        }
        if self.caps is not None:
            for name in ("cap", "over_cap"):
                found[name] = self._figure(
                    lambda gaps, caps, name=name: compute_cap_figures(gaps, caps)[name], self.gaps, self.caps
                )
        for name, values in self.similarity.items():
            found[f"gap_by_{name}"] = self._figure(compute_spearman, values, self.gaps)
        return found

    def _figure(self, statistic: object, *columns: Array) -> Figure:
        def drawn(places: Places) -> float:
            often = np.bincount(places, minlength=self.prompts)[self.owner]
            return float(statistic(*(np.repeat(column, often) for column in columns)))  # type: ignore[operator]

        return bootstrap_interval(drawn, self.prompts, len(self.gaps))

    def write(self, path: Path) -> None:
        """A CSV with a line a pair."""
        columns = {"gap": self.gaps, **self.similarity, **({} if self.caps is None else {"cap": self.caps})}
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["source", *columns])
            for place, source in enumerate(self.sources):
                writer.writerow([source, *(f"{column[place]:.6g}" for column in columns.values())])


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else math.nan


def _spread(values: Array) -> float:
    return float(values.std()) if values.size else math.nan
