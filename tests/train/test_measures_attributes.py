"""How well ratings are predicted, against the textbook's sums."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from tureen_train.measures.attributes import compute_attribute_metrics

NAN = math.nan


def test_every_figure_is_the_textbooks_over_the_labelled_rows() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(3.0, 2.0, size=(40, 2))
    predictions = labels + rng.normal(0.5, 1.0, size=labels.shape)
    labels[:15, 1] = NAN
    figures = compute_attribute_metrics(predictions, labels, ["good", "long"])
    for column, name, rows in ((0, "good", slice(None)), (1, "long", slice(15, None))):
        y, p = labels[rows, column], predictions[rows, column]
        assert figures[f"{name}_n"] == len(y)
        assert figures[f"{name}_r2"] == pytest.approx(1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum())
        assert figures[f"{name}_spearman"] == pytest.approx(spearmanr(y, p).statistic)
        assert figures[f"{name}_rmse"] == pytest.approx(np.sqrt(np.mean((y - p) ** 2)))
    assert figures["r2"] == pytest.approx((figures["good_r2"] + figures["long_r2"]) / 2)
    assert figures["spearman"] == pytest.approx((figures["good_spearman"] + figures["long_spearman"]) / 2)


def test_tables_of_prompts_and_answers_are_flat_rows() -> None:
    labels = np.array([[[1.0], [2.0]], [[4.0], [NAN]]])
    predictions = np.array([[[1.0], [2.0]], [[3.0], [NAN]]])
    figures = compute_attribute_metrics(predictions, labels, ["good"])
    assert (figures["good_n"], figures["good_spearman"]) == (3, 1.0)
    assert figures["good_rmse"] == pytest.approx(math.sqrt(1 / 3))


@pytest.mark.parametrize("labels", [[NAN, NAN], [2.0, 2.0], [2.0, NAN]], ids=str)
def test_what_does_not_vary_explains_nothing(labels: list[float]) -> None:
    figures = compute_attribute_metrics([[1.0], [3.0]], np.asarray(labels)[:, None], ["good"])
    assert math.isnan(figures["good_r2"])
    assert math.isnan(figures["good_spearman"])
    assert math.isnan(figures["r2"])


def test_the_mean_is_over_the_attributes_that_have_a_figure() -> None:
    figures = compute_attribute_metrics([[1.0, 5.0], [2.0, 5.0]], [[1.0, 5.0], [2.0, 5.0]], ["good", "same"])
    assert math.isnan(figures["same_r2"])
    assert figures["r2"] == figures["good_r2"] == 1.0
    assert figures["same_rmse"] == 0.0
