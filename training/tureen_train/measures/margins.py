"""Margins: the gap between the rewards of two answers, against the similarity of the answers and the cap on the gap.

PCRM (arXiv 2404.00978) caps the gap of a pair by δ, a function of the answers' similarity. Its loss is least at δ/2.
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
    """Select the cap δ of each comparable pair, in the order of :func:`tureen_train.measures.metrics.compute_gaps`.

    Args:
        caps: ``[B, N, N]``, δ of every two answers.
        scores: ``[B, N]``.
    """
    s = np.asarray(scores, dtype=np.float64)
    return np.asarray(np.asarray(caps, dtype=np.float64)[s[:, :, None] > s[:, None, :]])


def compute_cap_figures(gaps: Array, caps: Array) -> dict[str, float]:
    """Compute ``cap``, the mean δ (twice the wanted gap), and ``over_cap``, the share of gaps above their δ."""
    if not gaps.size:
        return {"cap": math.nan, "over_cap": math.nan}
    return {"cap": float(caps.mean()), "over_cap": float(np.mean(gaps > caps))}


@dataclass(frozen=True)
class Margins:
    """Comparable pairs ``[P]`` of all prompts.

    Attributes:
        sources: the file and line of each pair's record.
        owner: the number of each pair's prompt.
        gaps: the better answer's reward minus the worse one's.
        similarity: the similarities s in [0, 1], by measure (``length_ratio``, ``cosine``).
        caps: the caps δ; None without a constraint.
        prompts: the number of prompts.
    """

    sources: Sequence[str]
    owner: NDArray[np.intp]
    gaps: Array
    similarity: Mapping[str, Array]
    caps: Array | None
    prompts: int

    def figures(self) -> dict[str, Figure]:
        """Compute the accuracy, the mean and deviation of the gaps, the figures of the caps, and rank correlations.

        The rank correlations are Spearman's of gap and similarity, for each measure. ``right_margin`` is the mean of
        the positive gaps only; PCRM's own script reports it.
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
        """Write a CSV file with a line for each pair."""
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
