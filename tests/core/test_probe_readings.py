"""Which readings of probes are recorded, and which are refused."""

import math
from typing import Any

import pytest

from tureen_core.artifact import ArtifactError
from tureen_core.probe_readings import Rows, check_range, choose_readings, state_tolerances

NAMES = {0: "helpful"}


def column(*values: float) -> Rows:
    return [[value] for value in values]


def reader(bare: tuple[float, ...], effect: float, rounding: float) -> Any:
    """A model whose first probe an adapter moves, in proportion to its weight; bfloat16 moves it by ``rounding``."""

    def read(weight: float, half: bool) -> Rows:
        return column(bare[0] + weight * effect + (rounding if half else 0.0), *bare[1:])

    return read


def test_a_strong_adapter_is_recorded_as_it_is_served_and_without_it() -> None:
    found = choose_readings(reader((0.0, 3.0), 2.0, 0.1), NAMES, trained=True)
    assert found == {0.0: column(0.0, 3.0), 1.0: column(2.0, 3.0)}


def test_a_weak_adapter_is_recorded_at_the_smallest_weight_that_stands_out_of_rounding() -> None:
    found = choose_readings(reader((0.0, 3.0), 0.3, 0.09), NAMES, trained=True)
    assert found == {0.0: column(0.0, 3.0), 1.0: column(0.3, 3.0), 4.0: column(1.2, 3.0)}
    assert choose_readings(reader((0.0, 3.0), 0.1, 0.1), NAMES, trained=True).keys() == {0.0, 1.0, 16.0}


def test_an_adapter_below_the_rounding_is_recorded_and_told(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_readings(reader((0.0, 3.0), 0.1, 5.0), NAMES, trained=True).keys() == {0.0, 1.0, 16.0}
    assert "serve this artifact in float32" in caplog.text


def test_an_adapter_that_the_base_could_stand_in_for_is_refused() -> None:
    with pytest.raises(ArtifactError, match="helpful: the probes read the same without the adapter"):
        choose_readings(reader((0.0, 3.0), 0.0, 0.1), NAMES, trained=True)
    with pytest.raises(ArtifactError, match="effect 1.6e-05"):
        choose_readings(reader((0.0, 3.0), 1e-6, 0.1), NAMES, trained=True)


def test_an_adapter_that_was_not_trained_may_be_zero() -> None:
    assert choose_readings(reader((0.0, 3.0), 0.0, 0.1), NAMES, trained=False) == {1.0: column(0.0, 3.0)}


@pytest.mark.parametrize("rows", [column(1.0), column(2.0, 2.0), column(5000.0, 5000.1), column(math.nan, 1.0)])
def test_probes_too_alike_to_tell_are_refused(rows: Rows) -> None:
    with pytest.raises(ArtifactError, match="helpful: the .* probes read alike"):
        check_range(rows, NAMES)


def test_probes_that_differ_pass() -> None:
    check_range(column(0.5, 0.51), NAMES)


def test_the_stated_tolerances_are_those_of_the_widest_objective() -> None:
    found = state_tolerances([[0.0, 0.0], [1.0, 10.0]], (0, 1))
    assert found == pytest.approx({"float32": 1e-3, "float16": 0.3, "bfloat16": 1.5})
