"""Drift against independent float64: the stability index and the Kolmogorov-Smirnov distance."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest, norm

from tureen_serve.watching.drift import CELLS, LEAST, WINDOW, DriftWindow, compute_normal_share

Array = NDArray[np.float64]


def filled(scores: Array) -> DriftWindow:
    window = DriftWindow()
    for score in scores:
        window.add_score(float(score))
    return window


def stability(scores: Array) -> float:
    """The index over the normal distribution's deciles, with ½ in each."""
    edges = norm.ppf(np.linspace(0, 1, 11))
    shares = (np.histogram(scores, edges)[0] + 0.5) / (len(scores) + 5)
    return float(np.sum((shares - 0.1) * np.log(shares / 0.1)))


CASES = {"still": (0, 1), "moved": (0.5, 1), "narrow": (0, 0.3), "far": (9, 1), "wide": (-1, 4)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("texts", [LEAST, 2000, WINDOW])
def test_numbers_are_those_of_scipy(name: str, texts: int) -> None:
    scores = np.random.default_rng(texts).normal(*CASES[name], texts)
    window = filled(scores)
    assert window.compute_stability() == pytest.approx(stability(scores), rel=1e-9, abs=1e-12)
    distance = window.compute_distance()
    assert distance is not None
    assert 0 <= kstest(scores, "norm").statistic - distance <= 1 / CELLS


def test_only_the_last_scores_count() -> None:
    draw = np.random.default_rng(1)
    scores = np.concatenate([draw.normal(3, 1, 3 * WINDOW + 7), draw.normal(0, 1, WINDOW)])
    window, recent = filled(scores), filled(scores[-WINDOW:])
    assert window.texts == WINDOW
    assert window.compute_stability() == recent.compute_stability()
    assert window.compute_distance() == recent.compute_distance()
    assert window.compute_stability() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("moved", "index"), [(0.32, 0.1), (0.5, 0.25)])
def test_thresholds_are_shifts_of_a_third_and_of_half_a_deviation(moved: float, index: float) -> None:
    window = filled(norm.ppf((np.arange(WINDOW) + 0.5) / WINDOW) + moved)
    assert window.compute_stability() == pytest.approx(index, abs=0.03)
    assert window.compute_distance() == pytest.approx(2 * norm.cdf(moved / 2) - 1, abs=1 / CELLS)


def test_too_few_texts_say_nothing() -> None:
    window = filled(np.zeros(LEAST - 1))
    assert (window.compute_stability(), window.compute_distance()) == (None, None)


def test_extremes_are_finite() -> None:
    window = filled(np.tile([-1e300, 1e300], LEAST))
    assert window.compute_stability() == pytest.approx(stability(np.tile([-9.0, 9.0], LEAST)))
    assert window.compute_distance() == pytest.approx(0.5, abs=1.001 / CELLS)


def test_normal_share_is_exact() -> None:
    points = np.linspace(-8, 8, 101)
    np.testing.assert_allclose([compute_normal_share(float(each)) for each in points], norm.cdf(points), rtol=1e-12)
