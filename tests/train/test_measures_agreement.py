"""Agreement: by hand, against the published example of kappa, and where nothing varies."""

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from tureen_train.measures.agreement import compute_kappa, measure_agreement


def test_kappa_by_hand() -> None:
    """20 yes-yes, 15 no-no, 5 and 10 apart: (.7 − .5) / (1 − .5)."""
    first = np.array([1.0] * 25 + [-1.0] * 25)
    second = np.array([1.0] * 20 + [-1.0] * 5 + [1.0] * 10 + [-1.0] * 15)
    assert compute_kappa(first, second) == pytest.approx(0.4)
    assert compute_kappa(first, first) == 1
    assert math.isnan(compute_kappa(np.ones(3), np.ones(3)))
    assert math.isnan(compute_kappa(np.zeros(0), np.zeros(0)))


def test_pairs_of_one_prompt_are_judged_alike() -> None:
    """Three pairs of the first prompt, of which one is judged alike; one of the second, a tie against none."""
    found = measure_agreement([[3, 2, 1], [1, 1]], [[2, 3, 4], [1, 0]])
    assert (found["alike"].value, found["alike"].n) == (0.0, 4)
    same = measure_agreement([[3, 2, 1], [1, 1]], [[30, 20, 10], [7, 7]])
    assert (same["alike"].value, same["kappa"].value) == (1.0, 1.0)
    some = measure_agreement([[3, 2, 1]], [[3, 1, 2]])
    assert some["alike"].value == pytest.approx(2 / 3)


def test_correlations_are_of_all_rewards_and_of_margins() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(12, 2))
    second = first + rng.normal(size=(12, 2))
    found = measure_agreement(first.tolist(), second.tolist())
    assert found["spearman"].value == pytest.approx(spearmanr(first.ravel(), second.ravel()).statistic)
    assert found["pearson"].value == pytest.approx(pearsonr(first.ravel(), second.ravel()).statistic)
    gaps = [rows[:, 0] - rows[:, 1] for rows in (first, second)]
    margins = [np.concatenate([gap, -gap]) for gap in gaps]
    assert found["margins"].value == pytest.approx(pearsonr(*margins).statistic)
    assert found["margins"].n == 12
    assert found["spearman"].n == 24
    assert found["alike"].low <= found["alike"].value <= found["alike"].high


def test_equal_rewards_have_no_correlation() -> None:
    found = measure_agreement([[1, 1], [1, 1]], [[1, 2], [3, 4]])
    assert all(math.isnan(found[name].value) for name in ("spearman", "pearson", "margins"))
    assert found["alike"].value == 0


def test_which_answer_stands_first_does_not_matter() -> None:
    """In files of chosen and rejected two models that are right in 8 of 10 pairs would else agree by chance alone."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(1, 1, size=(2, 10, 2))
    turn = rng.integers(2, size=10).astype(bool)
    other = [np.where(turn[:, None], rows[:, ::-1], rows) for rows in (first, second)]
    one, turned = measure_agreement(first.tolist(), second.tolist()), measure_agreement(*[x.tolist() for x in other])
    for name in ("alike", "kappa", "margins"):
        assert turned[name].value == pytest.approx(one[name].value)
