"""The agreement of two versions against scipy in float64."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from tureen_serve.watching.agreement import WINDOW, Agreement, rank_values


def draw_groups(groups: int, answers: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(7)
    live = draw.normal(size=(groups, answers))
    shadow = 0.8 * live + 0.6 * draw.normal(size=(groups, answers)) + 0.25
    return np.round(live / step) * step, np.round(shadow / step) * step


@pytest.mark.parametrize("step", [0.001, 0.5])
def test_the_numbers_are_those_of_scipy_also_with_ties(step: float) -> None:
    live, shadow = draw_groups(100, 4, step)
    agreement = Agreement("v1", fitted=True)
    for one, other in zip(live.tolist(), shadow.tolist(), strict=True):
        agreement.take_group(one, other)
    assert (agreement.texts, agreement.pairs) == (400, 600)
    assert agreement.compute_rank_correlation() == pytest.approx(spearmanr(live.ravel(), shadow.ravel()).statistic)
    assert agreement.mean_difference == pytest.approx((shadow - live).mean())
    assert agreement.largest_difference == pytest.approx(np.abs(shadow - live).max())
    i, j = np.triu_indices(4, 1)
    same = np.sign(live[:, i] - live[:, j]) == np.sign(shadow[:, i] - shadow[:, j])
    assert agreement.pair_agreement == pytest.approx(same.mean())


def test_only_the_last_texts_count_for_the_correlation_and_all_pairs_for_the_agreement() -> None:
    agreement = Agreement("v1", fitted=False)
    agreement.take_group([1.0, 2.0], [2.0, 1.0])
    for number in range(WINDOW):
        agreement.take_group([float(number)], [float(number)])
    assert agreement.compute_rank_correlation() == pytest.approx(1)
    assert (agreement.pair_agreement, agreement.mean_difference, agreement.texts) == (0, 0, WINDOW + 2)
    assert agreement.live_drift.texts == 0  # raw scores have no calibration to drift from


def test_both_versions_drift_against_their_own_calibration() -> None:
    draw = np.random.default_rng(3).normal(size=1024)
    agreement = Agreement("v1", fitted=True)
    agreement.take_group(draw.tolist(), (draw + 1).tolist())
    steady, moved = agreement.live_drift.compute_stability(), agreement.shadow_drift.compute_stability()
    assert steady is not None
    assert moved is not None
    assert steady < 0.1 < 0.25 < moved


def test_nothing_is_told_before_there_is_something() -> None:
    agreement = Agreement("v1", fitted=True)
    assert agreement.compute_rank_correlation() is None
    assert (agreement.pair_agreement, agreement.mean_difference, agreement.largest_difference) == (None, None, None)
    agreement.take_group([1.0], [1.0])
    assert agreement.compute_rank_correlation() is None
    assert rank_values([3.0, 1.0, 3.0, 2.0]) == rankdata([3, 1, 3, 2]).tolist()
