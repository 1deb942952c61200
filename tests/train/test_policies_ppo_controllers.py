"""KL controllers against numbers by hand and the published rule."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen_train.policies.ppo.controllers import KlController, adapt_coefficient


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (6.0, 0.2),  # on target
        (6.6, 0.2 * (1 + 0.1 * 64 / 10_000)),  # a tenth above
        (60.0, 0.2 * (1 + 0.2 * 64 / 10_000)),  # far above: the error is clipped
        (0.0, 0.2 * (1 - 0.2 * 64 / 10_000)),
        (-5.0, 0.2 * (1 - 0.2 * 64 / 10_000)),  # an estimate can be negative
    ],
)
def test_the_published_rule(measured: float, expected: float) -> None:
    assert adapt_coefficient(0.2, measured, 6.0, 64, 10_000) == pytest.approx(expected, rel=1e-12)
    control = KlController(0.2, target=6.0, horizon=10_000)
    control.update(measured, 64)
    assert control.value == pytest.approx(expected, rel=1e-12)


def test_steps_of_one_answer_each_multiply() -> None:
    control = KlController(0.1, target=3.0, horizon=10)
    for measured in (3.3, 2.7, 30.0):
        control.update(measured, 2)
    assert control.value == pytest.approx(0.1 * (1 + 0.1 / 5) * (1 - 0.1 / 5) * (1 + 0.2 / 5), rel=1e-12)


@given(st.floats(0, 100))
def test_a_fixed_coefficient_stays(measured: float) -> None:
    control = KlController(0.2)
    control.update(measured, 1_000)
    assert control.value == 0.2


@pytest.mark.parametrize("measured", [math.nan, math.inf, -math.inf])
def test_a_divergence_that_is_no_number_changes_nothing(measured: float) -> None:
    control = KlController(0.2, target=6.0)
    control.update(measured, 64)
    assert control.value == 0.2


def test_a_checkpoint_keeps_the_coefficient() -> None:
    control = KlController(0.2, target=6.0)
    control.update(12.0, 640)
    again = KlController(0.2, target=6.0)
    again.load_state_dict(control.state_dict())
    assert again == control
