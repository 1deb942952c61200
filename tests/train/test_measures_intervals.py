"""Intervals: against scipy's, against simulation, and where there is nothing to say."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from tureen_train.measures.intervals import (
    Figure,
    bootstrap_interval,
    combine_weighted,
    compute_percentiles,
    draw_resamples,
    estimate_share,
    parse_figure,
)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (1, 1), (37, 64), (999, 1000)])
def test_a_shares_interval_is_wilsons(right: int, n: int) -> None:
    found = estimate_share([1.0] * right + [0.0] * (n - right))
    wanted = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert found.value == right / n
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert found.n == n


def test_a_tie_is_half_a_success() -> None:
    assert estimate_share([0.5, 0.5, 1.0, 0.0]) == estimate_share([1.0, 1.0, 0.0, 0.0])


def test_no_items_have_no_share() -> None:
    found = estimate_share([])
    assert math.isnan(found.value)
    assert found.n == 0


def test_a_weighted_mean_puts_intervals_together() -> None:
    one, other = Figure(0.8, 0.7, 0.85, 10), Figure(0.4, 0.3, 0.6, 30)
    found = combine_weighted([one, other], [3, 1])
    assert found.value == pytest.approx(0.7)
    assert found.low == pytest.approx(0.7 - math.hypot(0.75 * 0.1, 0.25 * 0.1))
    assert found.high == pytest.approx(0.7 + math.hypot(0.75 * 0.05, 0.25 * 0.2))
    assert found.n == 40
    alone = combine_weighted([one], [984])
    assert (alone.value, alone.low, alone.high) == pytest.approx((0.8, 0.7, 0.85))
    assert math.isnan(combine_weighted([], []).value)


def test_an_interval_of_95_percent_holds_the_truth_as_often() -> None:
    """400 times: two subsets of 40 and 60 items with shares .9 and .6, weighed 2 to 1."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        parts = [estimate_share((rng.random(n) < p).astype(float).tolist()) for n, p in ((40, 0.9), (60, 0.6))]
        found = combine_weighted(parts, [2, 1])
        held += found.low <= 0.8 <= found.high
    assert 0.92 < held / 400 < 0.98


def test_the_bootstrap_is_the_normal_interval_of_a_mean() -> None:
    values = np.random.default_rng(2).normal(3, 2, 500)
    found = bootstrap_interval(lambda places: float(values[places].mean()), 500)
    half = 1.96 * values.std() / math.sqrt(500)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.1 * half)
    assert found.n == 500


def test_the_bootstrap_draws_the_same_every_time() -> None:
    values = np.arange(20.0)
    one, other = (bootstrap_interval(lambda places: float(np.median(values[places])), 20, n=7) for _ in range(2))
    assert one == other
    assert one.n == 7
    assert all((a == b).all() for a, b in zip(draw_resamples(5), draw_resamples(5), strict=True))


def test_one_item_or_none_has_no_interval() -> None:
    one = bootstrap_interval(lambda places: float(places.sum()), 1)
    assert one.value == 0
    assert math.isnan(one.low)
    assert math.isnan(bootstrap_interval(lambda places: 1.0, 0).value)


def test_what_is_undefined_in_most_resamples_has_no_interval() -> None:
    assert compute_percentiles([1.0, 2.0, 3.0, math.nan]) == pytest.approx((1.05, 2.95))
    assert all(math.isnan(edge) for edge in compute_percentiles([1.0, math.nan, math.nan]))


def test_a_figure_survives_json() -> None:
    for figure in (Figure(0.5, 0.4, 0.6, 3), Figure(0.5), Figure(math.nan)):
        told = json.loads(json.dumps(figure.plain(), allow_nan=False))
        assert repr(parse_figure(told)) == repr(figure)
    assert Figure(math.nan).plain() == {"value": None, "low": None, "high": None, "n": 0}
