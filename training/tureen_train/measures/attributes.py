"""Metrics of predicted ratings: explained variance, rank correlation and error. Pure numpy, float64."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tureen_train.measures.correlation import compute_spearman
from tureen_train.measures.metrics import Array


def compute_attribute_metrics(predictions: ArrayLike, labels: ArrayLike, names: Sequence[str]) -> dict[str, float]:
    """Compute the metrics of each attribute, and their means over attributes.

    R² is 1 − Σ(y − ŷ)² / Σ(y − ȳ)², where ȳ is the mean of the given labels. It is NaN if the labels are constant.
    Spearman's correlation is NaN if the labels or the predictions are constant. The means leave NaN out.

    Args:
        predictions: ``[..., K]``, in the unit of the labels.
        labels: ``[..., K]``, NaN where a label is missing.
        names: the names of the K attributes.

    Returns:
        ``<name>_n``, ``<name>_r2``, ``<name>_spearman`` and ``<name>_rmse`` of each attribute; the means ``r2`` and
        ``spearman``.
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
    """The mean of the values that are not NaN; NaN if there are none."""
    found = [value for value in values if value == value]
    return float(np.mean(found)) if found else float("nan")
