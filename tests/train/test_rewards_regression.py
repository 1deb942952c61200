"""Regression with missing labels: its loss by finite differences, ridge against another formula of the same."""

import math

import numpy as np
import pytest
import torch

from tureen_train.rewards.regression import Scales, TooFewLabelsError, fit_ridge, sum_squared_errors

NAN = math.nan
ALPHAS = [1e-4, 1e-2, 1.0, 1e2, 1e4]


# --------------------------------------------------------------------------- the loss


def test_only_labelled_cells_are_summed() -> None:
    predictions, labels = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, NAN], [NAN, 1.0]])
    assert float(sum_squared_errors(predictions, labels)) == 1.0 + 9.0
    assert float(sum_squared_errors(predictions, torch.full((2, 2), NAN))) == 0.0


def test_the_gradient_is_that_of_finite_differences_and_0_where_nothing_is_labelled() -> None:
    rng = torch.Generator().manual_seed(0)
    predictions = torch.randn(4, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    labels = torch.randn(4, 3, generator=rng, dtype=torch.float64)
    labels[0, 1] = labels[2, 0] = NAN
    assert torch.autograd.gradcheck(lambda rewards: sum_squared_errors(rewards, labels), predictions)
    sum_squared_errors(predictions, labels).backward()
    assert predictions.grad is not None
    assert (predictions.grad == 0).tolist() == torch.isnan(labels).tolist()


def test_scales_are_those_of_the_known_labels() -> None:
    scales = Scales.of(np.array([[1.0, 5.0, NAN], [3.0, 5.0, 2.0], [NAN, 5.0, 2.5]]))
    assert scales.mean.tolist() == [2.0, 5.0, 2.25]
    assert scales.std.tolist() == [1.0, 1.0, 0.25]
    assert scales.standardise(np.array([[3.0, 6.0, 2.0]])).tolist() == [[1.0, 1.0, -1.0]]


# --------------------------------------------------------------------------- ridge


def data(rows: int = 60, width: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(rows, width)) * 3
    clear = features @ rng.normal(size=width) + 0.1 * rng.normal(size=rows)
    labels = np.stack([clear, 30 * rng.normal(size=rows)], axis=1)  # one that features tell, and noise
    labels[:20, 1] = NAN
    return features, labels, np.arange(rows) // 2


def augmented(features: np.ndarray, labels: np.ndarray, alpha: float) -> np.ndarray:
    """The same minimum as least squares with √α·I below the features and zeros below the labels."""
    width = features.shape[1]
    rows = np.vstack([features, np.sqrt(alpha) * np.eye(width)])
    solved: np.ndarray = np.linalg.lstsq(rows, np.concatenate([labels, np.zeros(width)]), rcond=None)[0]
    return solved


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_weights_are_the_minimum_for_one_penalty(alpha: float) -> None:
    features, labels, groups = data()
    found = fit_ridge(features, labels, groups, [alpha], 0.2, seed=0)
    for column in range(2):
        known = ~np.isnan(labels[:, column])
        expected = augmented(features[known], labels[known, column], alpha)
        assert found.weights[column] == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_fewer_rows_than_features_are_fitted_as_well() -> None:
    features, labels, groups = data(rows=20, width=50)
    labels = labels[:, :1]
    found = fit_ridge(features, labels, groups, [1e-2], 0.2, seed=0)
    assert found.weights[0] == pytest.approx(augmented(features, labels[:, 0], 1e-2), rel=1e-6, abs=1e-9)


def test_each_attribute_chooses_the_penalty_of_the_least_error_on_held_out_groups() -> None:
    features, labels, groups = data()
    found = fit_ridge(features, labels, groups, ALPHAS, 0.2, seed=3)
    held = np.isin(groups, np.random.default_rng(3).permutation(np.unique(groups))[:6])
    for column in range(2):
        known = ~np.isnan(labels[:, column])
        errors = []
        for alpha in ALPHAS:
            weights = augmented(features[known & ~held], labels[known & ~held, column], alpha)
            gaps = features[known & held] @ weights - labels[known & held, column]
            errors.append(float((gaps**2).mean()))
        assert found.alphas[column] == ALPHAS[int(np.argmin(errors))]
        assert found.errors[column] == pytest.approx(min(errors))
    assert found.alphas[0] < found.alphas[1]


def test_an_attribute_that_one_side_does_not_know_is_named_by_its_column() -> None:
    features, labels, groups = data()
    labels[1:, 1] = NAN
    with pytest.raises(TooFewLabelsError, match="too few labels") as caught:
        fit_ridge(features, labels, groups, ALPHAS, 0.2, seed=0)
    assert caught.value.column == 1
