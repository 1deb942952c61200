"""How well ratings are predicted: explained variance, rank correlation, error. Pure numpy, float64."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tureen_train.measures.correlation import compute_spearman
from tureen_train.measures.metrics import Array


def compute_attribute_metrics(predictions: ArrayLike, labels: ArrayLike, names: Sequence[str]) -> dict[str, float]:
    """``<name>_n``, ``_r2``, ``_spearman`` and ``_rmse`` of each attribute, and the means ``r2`` and ``spearman``.

    R² is 1 − Σ(y − ŷ)² / Σ(y − ȳ)² with the mean of the labels judged. NaN where labels (for Spearman predictions,
    too) do not vary; the means leave NaN out.

    Args:
        predictions: ``[..., K]``, in the labels' unit.
        labels: ``[..., K]``, NaN where there is none.
        names: of the K attributes.
    """
    k = len(names)
    predicted, known = (np.asarray(each, dtype=np.float64).reshape(-1, k) for each in (predictions, labels))
    figures: dict[str, float] = {}
    for column, name in enumerate(names):
        rows = ~np.isnan(known[:, column])
        found = _figures(predicted[rows, column], known[rows, column])
        figures |= {f"{name}_{figure}": value for figure, value in found.items()}
    means = {each: _mean([figures[f"{name}_{each}"] for name in names]) for each in ("r2", "spearman")}
    return means | figures


def _figures(predicted: Array, known: Array) -> dict[str, float]:
    if not known.size:
        return {"n": 0, "r2": float("nan"), "spearman": float("nan"), "rmse": float("nan")}
    error, spread = float(((predicted - known) ** 2).sum()), float(((known - known.mean()) ** 2).sum())
    return {
        "n": known.size,
        "r2": 1 - error / spread if spread > 0 else float("nan"),
        "spearman": compute_spearman(predicted, known),
        "rmse": float(np.sqrt(error / known.size)),
    }


def _mean(values: Sequence[float]) -> float:
    """Of those that are numbers."""
    found = [value for value in values if value == value]
    return float(np.mean(found)) if found else float("nan")
