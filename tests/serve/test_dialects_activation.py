"""What classifiers' servers make of raw scores."""

import math

import pytest

from tureen_core.calibration import compute_sigmoid
from tureen_serve.dialects.activation import activate_scores, label_scores


def test_one_score_is_squashed_and_several_share_one() -> None:
    assert activate_scores([2.0]) == [compute_sigmoid(2.0)]
    found = activate_scores([0.0, math.log(3)])
    assert found == [pytest.approx(0.25), pytest.approx(0.75)]


@pytest.mark.parametrize("values", [[1e4], [-1e4], [1e4, -1e4, 9999.0]])
def test_no_score_is_too_large(values: list[float]) -> None:
    assert all(0 <= each <= 1 for each in activate_scores(values))


def test_the_best_comes_first_also_where_scores_saturate() -> None:
    assert [each["label"] for each in label_scores("abc", [1.0, 3.0, 2.0], raw=True)] == ["b", "c", "a"]
    found = label_scores("ab", [800.0, 900.0], raw=False)
    assert found == [{"score": 1.0, "label": "b"}, {"score": pytest.approx(0.0), "label": "a"}]
