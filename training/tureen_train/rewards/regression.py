"""Regression on several attributes with missing labels: loss, scales, and ridge regression in closed form. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tureen_train.measures.metrics import Array


class TooFewLabelsError(ValueError):
    """An attribute has too few labels to be fitted; ``column`` is its number."""

    def __init__(self, column: int) -> None:
        super().__init__("it has too few labels to choose a ridge penalty; add records that rate it")
        self.column = column


def sum_squared_errors(predictions: Tensor, labels: Tensor) -> Tensor:
    """Sum (prediction − label)² over the cells that have a label. Both are ``[M, K]``; a missing label is NaN."""
    gaps = predictions - torch.nan_to_num(labels)
    return torch.where(torch.isnan(labels), torch.zeros_like(gaps), gaps).square().sum()


@dataclass(frozen=True)
class Scales:
    """Mean and deviation of each attribute's labels, ``[K]`` each. The deviation of constant labels is 1."""

    mean: Array
    std: Array

    @classmethod
    def of(cls, labels: Array) -> "Scales":
        """From labels ``[n, K]``, NaN where missing; every column needs one label."""
        mean, std = np.nanmean(labels, axis=0), np.nanstd(labels, axis=0)
        constant = std <= 1e-12 * np.maximum(1.0, np.abs(mean))
        return cls(mean, np.where(constant, 1.0, std))

    def standardise(self, labels: Array) -> Array:
        """Return (label − mean) / std."""
        return (labels - self.mean) / self.std


@dataclass(frozen=True)
class RidgeFit:
    """Weights ``[K, H]``, the chosen penalty of each attribute, and its mean squared error on the validation part."""

    weights: Array
    alphas: list[float]
    errors: list[float]


def fit_ridge(
    features: Array, labels: Array, groups: NDArray[np.int_], alphas: Sequence[float], validation: float, seed: int
) -> RidgeFit:
    """Fit a ridge regression without intercept to each attribute. Its penalty is chosen on held-out groups.

    Args:
        features: ``[n, H]`` float64.
        labels: ``[n, K]``, NaN where missing.
        groups: ``[n]``; rows of one group, as the answers to one prompt, stay in the same part.
        alphas: the penalties α of ‖Xw − y‖² + α‖w‖² to choose from. With the chosen one all rows are fitted.
        validation: the share of the groups that are held out for the choice.
        seed: for drawing these groups.

    Raises:
        TooFewLabelsError: an attribute has no label in one of the two parts.
    """
    numbers = np.unique(groups)
    chosen = np.random.default_rng(seed).permutation(numbers)[: max(1, round(validation * len(numbers)))]
    held = np.isin(groups, chosen)
    solved: dict[bytes, Gram] = {}
    weights, best, errors = [], [], []
    for column in range(labels.shape[1]):
        y = labels[:, column]
        known = ~np.isnan(y)
        fitted, judging = known & ~held, known & held
        if not fitted.any() or not judging.any():
            raise TooFewLabelsError(column)
        path = _gram(features, fitted, solved).weights(features[fitted].T @ y[fitted], alphas)
        loss = ((features[judging] @ path.T - y[judging, None]) ** 2).mean(0)
        at = int(loss.argmin())
        whole = _gram(features, known, solved).weights(features[known].T @ y[known], [alphas[at]])
        weights.append(whole[0])
        best.append(float(alphas[at]))
        errors.append(float(loss[at]))
    return RidgeFit(np.stack(weights), best, errors)


@dataclass(frozen=True)
class Gram:
    """XᵀX as eigenvalues ``[H]`` and eigenvectors ``[H, H]``, so that each penalty costs one division."""

    values: Array
    vectors: Array

    def weights(self, moments: Array, alphas: Sequence[float]) -> Array:
        """Return (XᵀX + αI)⁻¹ Xᵀy for each α, ``[A, H]``. ``moments`` is Xᵀy."""
        turned = self.vectors.T @ moments
        shrunk: Array = turned / (self.values + np.asarray(alphas)[:, None])
        return np.asarray(shrunk @ self.vectors.T)


def _gram(features: Array, rows: NDArray[np.bool_], solved: dict[bytes, Gram]) -> Gram:
    """Decompose XᵀX. Attributes with labels on the same rows share one decomposition."""
    key = rows.tobytes()
    if key not in solved:
        values, vectors = np.linalg.eigh(features[rows].T @ features[rows])
        solved[key] = Gram(np.maximum(values, 0.0), vectors)
    return solved[key]
