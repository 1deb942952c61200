"""Readings at several weights of the adapter: what is compared, what is recorded, what is refused."""

import math
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tureen_core.artifact import ArtifactError
from tureen_train.runs.artifact_kind import Rows
from tureen_train.runs.probe_readings import (
    check_range,
    check_same,
    choose_readings,
    read_at_weights,
    state_tolerances,
)

NAMES = {0: "helpful"}


def column(*values: float) -> Rows:
    return [[value] for value in values]


# --------------------------------------------------------------------------- reading


def test_a_model_is_read_at_each_weight_of_its_adapter_and_left_as_it_was() -> None:
    torch.manual_seed(0)
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 1)), LoraConfig(target_modules=["0"], r=2))
    torch.nn.init.normal_(model.base_model.model[0].lora_B["default"].weight)
    given = torch.ones(1, 4)

    def read() -> Rows:
        rows: Rows = model(given).tolist()
        return rows

    before = read()
    found = read_at_weights(model, read)
    effect = found[1.0][0][0] - found[0.0][0][0]
    assert found[8.0][0][0] - found[0.0][0][0] == pytest.approx(8 * effect, rel=1e-5)
    assert abs(effect) > 0.01
    assert read() == before


def test_a_model_without_an_adapter_is_read_once() -> None:
    assert read_at_weights(torch.nn.Linear(4, 1), lambda: column(3.0)) == {1.0: column(3.0)}


# --------------------------------------------------------------------------- comparing


@pytest.mark.parametrize(
    ("live", "again", "dtype"),
    [
        ([0.0, 1.0], [0.0009, 1.0], "float32"),
        ([0.0, 100.0], [0.09, 100.0], "float32"),
        ([0.0, 1.0], [0.14, 0.86], "bfloat16"),
        ([-5.0, 5.0], [-3.6, 5.0], "bfloat16"),
    ],
)
def test_differences_within_the_tolerance_pass(live: list[float], again: list[float], dtype: str) -> None:
    check_same({1.0: column(*live)}, {1.0: column(*again)}, dtype)


@pytest.mark.parametrize(
    ("live", "again", "dtype", "probe"),
    [
        ([0.0, 1.0], [0.0, 1.0011], "float32", 1),
        ([0.0, 1.0], [0.21, 1.0], "bfloat16", 0),
        ([0.0, 0.1], [0.0, 0.12], "bfloat16", 1),
        ([0.0, 1.0], [0.0, math.nan], "bfloat16", 1),
        ([math.nan, 1.0], [0.0, 1.0], "bfloat16", 0),
        ([0.0, 1.0], [math.inf, 1.0], "bfloat16", 0),
    ],
)
def test_larger_differences_are_refused_by_the_probes_number(
    live: list[float], again: list[float], dtype: str, probe: int
) -> None:
    with pytest.raises(ValueError, match=f"probe {probe}: "):
        check_same({1.0: column(*live)}, {1.0: column(*again)}, dtype)


def test_an_objective_of_a_small_scale_is_checked_by_its_own_range() -> None:
    live, again = [[0.0, 0.0], [10.0, 0.01]], [[0.0, 0.01], [10.0, 0.0]]
    with pytest.raises(ValueError, match="probe 0: trained 0.00000, read again 0.01000"):
        check_same({1.0: live}, {1.0: again}, "bfloat16")


def test_the_adapters_effect_is_the_measure_at_the_larger_weight() -> None:
    live = {0.0: column(0.0, 10.0), 1.0: column(0.1, 10.0), 8.0: column(0.8, 10.0)}
    with pytest.raises(ValueError, match="probe 0, adapter at 8 times: trained 0.80000, read again 0.00000"):
        check_same(live, dict.fromkeys(live, live[0.0]), "bfloat16")
    check_same(live, live | {8.0: column(0.65, 10.0)}, "bfloat16")


def test_probes_that_were_not_all_read_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        check_same({1.0: column(1.0, 2.0)}, {1.0: column(1.0)}, "float32")


# --------------------------------------------------------------------------- recording


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
