"""Readings at several weights of the adapter, and the comparison of the saved model with the trained one."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tureen_core.probe_readings import Rows
from tureen_train.runs.probe_readings import check_same, read_at_weights


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
