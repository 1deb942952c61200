"""Scales and temperatures against numpy and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize_scalar

from tureen.errors import Unprocessable
from tureen_core.calibration import (
    HIGHEST,
    LOWEST,
    Calibration,
    check_common_scale,
    compute_sigmoid,
    fit_calibration,
    fit_temperature,
    resolve_scale,
)


def loss(log_temperature: float, gaps: np.ndarray) -> float:
    """Σ t·softplus(−gap/T) + (1 − t)·softplus(gap/T) with Platt's target t = (n + 1) / (n + 2)."""
    odds, target = gaps / math.exp(log_temperature), (len(gaps) + 1) / (len(gaps) + 2)
    return float((target * np.logaddexp(0.0, -odds) + (1 - target) * np.logaddexp(0.0, odds)).sum())


@pytest.mark.parametrize("seed", range(8))
def test_the_temperature_is_the_likeliest_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gaps = rng.normal(rng.uniform(0, 2), rng.uniform(0.5, 5), size=200)
    bounds = (math.log(LOWEST), math.log(HIGHEST))
    best = minimize_scalar(loss, args=(gaps,), bounds=bounds, method="bounded", options={"xatol": 1e-10})
    fitted = fit_temperature(gaps.tolist())
    assert loss(math.log(fitted), gaps) <= best.fun + 1e-9
    assert fitted == pytest.approx(math.exp(best.x), rel=1e-4)


@pytest.mark.parametrize("pairs", [1, 4, 30, 1000])
def test_pairs_that_are_all_right_are_as_sure_as_their_number_allows(pairs: int) -> None:
    fitted = fit_temperature([3.0] * pairs)
    assert compute_sigmoid(3.0 / fitted) == pytest.approx((pairs + 1) / (pairs + 2))


def test_a_temperature_is_recovered_from_its_own_choices() -> None:
    rng = np.random.default_rng(0)
    gaps = np.abs(rng.normal(0, 4, size=200_000))
    right = rng.random(gaps.size) < 1 / (1 + np.exp(-gaps / 2.5))
    assert fit_temperature(np.where(right, gaps, -gaps).tolist()) == pytest.approx(2.5, rel=0.02)


@pytest.mark.parametrize(
    ("gaps", "temperature"),
    [
        ([], 1.0),
        ([0.0, 0.0], 1.0),
        ([1.0, 0.0], 1 / math.log(2)),
        ([2.0] * 8, 2 / math.log(9)),
        ([-1.0, -2.0], HIGHEST),
        ([1e-6, 1e-6], LOWEST),
        ([-1e6], HIGHEST),
        ([1.0, -1.0], HIGHEST),
    ],
)
def test_extremes_stay_within_bounds(gaps: list[float], temperature: float) -> None:
    assert fit_temperature(gaps) == pytest.approx(temperature)


@given(st.lists(st.floats(-50, 50), max_size=20), st.floats(0.1, 10))
def test_a_temperature_scales_with_the_gaps(gaps: list[float], factor: float) -> None:
    fitted = fit_temperature(gaps)
    assert LOWEST * 0.999 <= fitted <= HIGHEST * 1.001
    if any(gaps) and LOWEST * 11 < fitted < HIGHEST / 11:
        assert fit_temperature([gap * factor for gap in gaps]) == pytest.approx(fitted * factor, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_and_named(bad: float) -> None:
    with pytest.raises(ValueError, match=r"gap 1 is -?(nan|inf), not a finite number"):
        fit_temperature([1.0, bad])
    with pytest.raises(ValueError, match="gap 0 is"):
        fit_calibration([1.0, 2.0], [bad])
    with pytest.raises(ValueError, match="reward 2 is"):
        fit_calibration([1.0, 2.0, bad], [1.0])


def test_nothing_can_be_fitted_on_no_rewards() -> None:
    with pytest.raises(ValueError, match="no rewards"):
        fit_calibration([], [])


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_mean_and_deviation_are_the_populations(raw: list[float]) -> None:
    fitted = fit_calibration(raw, [])
    assert fitted.mean == pytest.approx(float(np.mean(raw)), rel=1e-9, abs=1e-9)
    if np.std(raw) > 1e-6:
        assert fitted.std == pytest.approx(float(np.std(raw)), rel=1e-6)
        assert np.std([fitted.standardise(each) for each in raw]) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("raw", [[3.0], [0.1] * 7, [0.0, 0.0], [1e8, 1e8]])
def test_equal_rewards_have_a_deviation_of_one(raw: list[float]) -> None:
    fitted = fit_calibration(raw, [1.0, -2.0])
    assert fitted.std == 1.0
    assert fitted.standardise(raw[0]) == pytest.approx(0, abs=1e-6)


def test_a_calibration_scales_and_compares() -> None:
    scale = Calibration(mean=2, std=4, temperature=0.5)
    assert scale.standardise(10) == 2
    assert scale.standardise(2) == 0
    assert scale.logit(3, 2) == 2
    assert scale.logit(2, 3) == -2
    assert Calibration().standardise(1.5) == 1.5


def test_a_two_decimal_probability() -> None:
    assert compute_sigmoid(0) == 0.5
    assert compute_sigmoid(math.log(3)) == pytest.approx(0.75)
    assert compute_sigmoid(-math.log(3)) == pytest.approx(0.25)


@given(st.floats(allow_nan=False))
def test_probabilities_never_overflow_and_mirror(logit: float) -> None:
    assert 0 <= compute_sigmoid(logit) <= 1
    assert compute_sigmoid(logit) + compute_sigmoid(-logit) == pytest.approx(1)


@pytest.mark.parametrize(
    "field", [{"mean": math.nan}, {"std": 0}, {"std": -1}, {"temperature": 0}, {"std": math.inf}, {"median": 1}]
)
def test_a_scale_without_meaning_is_refused(field: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate(field)


def test_a_calibration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        setattr(Calibration(), "mean", 2)  # noqa: B010


def test_a_reward_without_a_calibration_stays_raw() -> None:
    bare = resolve_scale(None)
    assert [bare.standardise(raw) for raw in (-3.7, 0.1, 1e9)] == [-3.7, 0.1, 1e9]
    assert (bare.logit(2.5, 1.25), bare.probability(0.3)) == (1.25, compute_sigmoid(0.3))
    scale = Calibration(mean=1.0, std=2.0, temperature=1.5)
    assert resolve_scale(scale) is scale


def test_only_rewards_with_a_calibration_each_can_be_added_up() -> None:
    scales = {"a": Calibration(), "b": Calibration(mean=3), "bare": None, "other": None}
    for summed in ((), ("a",), ("a", "b"), ("bare",)):
        check_common_scale(summed, scales)
    for refused in (("a", "bare"), ("bare", "b"), ("bare", "other")):
        with pytest.raises(Unprocessable, match="^(bare) has no calibration.* raw rewards.*--calibrate") as caught:
            check_common_scale(refused, scales, "mix")
        assert (caught.value.param, caught.value.code) == ("mix", "uncalibrated_reward")
