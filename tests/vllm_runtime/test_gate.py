"""The gate's buffers by themselves against the algebra of the core, and the places where vLLM is hooked."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import vllm
from packaging.version import Version
from vllm.lora.punica_wrapper import punica_selector
from vllm.lora.punica_wrapper.punica_base import PunicaWrapperBase
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.v1.worker.gpu.lora_utils import LoraState
from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch
from vllm.v1.worker.lora_model_runner_mixin import LoRAModelRunnerMixin

from tureen_core.soup import Semantics, apply_gate
from tureen_serve.runtimes.contract import Weights
from tureen_serve.runtimes.on_vllm import internals
from tureen_serve.runtimes.on_vllm.adapters import format_gate_name
from tureen_serve.runtimes.on_vllm.gate_table import GateTable
from tureen_serve.runtimes.on_vllm.internals import PROVEN_RELEASES, AdapterSlots, _hook_v1, _hook_v2

EXPERTS = ("a", "b", "c")


def table(ranks: tuple[int, ...] = (4, 4, 4), factor: bool = True, rank: int = 16) -> GateTable:
    return GateTable(64, rank, EXPERTS, ranks, factor, "cpu")


def wanted(h: torch.Tensor, weights: dict[str, float], ranks: tuple[int, ...], semantics: Semantics) -> torch.Tensor:
    row = torch.tensor([weights.get(name, 0.0) for name in EXPERTS], dtype=torch.float64)
    mixed = apply_gate(h[..., : sum(ranks)].double(), row, ranks, semantics)
    return torch.nn.functional.pad(mixed, (0, h.shape[-1] - sum(ranks)))


REQUESTS: list[tuple[Weights, Semantics, int]] = [
    ((("a", 0.6), ("c", 0.4)), "delta", 3),
    ((("a", 0.6), ("c", 0.4)), "factor", 5),
    ((("b", -1.5),), "delta", 1),
    ((("a", 1.0), ("b", -0.5)), "factor", 2),
]


def test_every_token_is_mixed_as_its_request_asks() -> None:
    gate = table()
    names: list[str | None] = [format_gate_name(weights, semantics) for weights, semantics, _ in REQUESTS]
    gate.write_rows([*names, None, "somebody-elses"], [*(count for _, _, count in REQUESTS), 2, 4])
    h = torch.randn(3, 17, 16, generator=torch.Generator().manual_seed(1))
    h[..., 12:] = 0  # what vLLM pads an adapter with
    found, start = gate.mix(h), 0
    for weights, semantics, count in REQUESTS:
        own = h[:, start : start + count]
        torch.testing.assert_close(
            found[:, start : start + count].double(),
            wanted(own, dict(weights), (4, 4, 4), semantics),
            atol=1e-6,
            rtol=0,
        )
        start += count
    assert not found[:, start : start + 2].any()
    torch.testing.assert_close(found[:, start + 2 :], h[:, start + 2 :])


def test_unequal_ranks_are_laid_out_in_order() -> None:
    gate = table((2, 8, 1), factor=False)
    gate.write_rows([format_gate_name((("a", 2.0), ("b", 3.0), ("c", 5.0)), "delta")], [1])
    found = gate.mix(torch.ones(1, 16))[0].tolist()
    assert found == [2.0] * 2 + [3.0] * 8 + [5.0] + [0.0] * 5


def test_a_gate_nobody_wrote_to_changes_nothing() -> None:
    h = torch.randn(2, 5, 16)
    torch.testing.assert_close(table().mix(h), h)


def test_the_buffers_keep_their_address_and_rows_are_written_over() -> None:
    gate = table()
    before = gate._delta.data_ptr()
    gate.write_rows([format_gate_name((("a", 1.0),), "delta")], [4])
    gate.write_rows([format_gate_name((("b", 1.0),), "delta")], [2])
    assert gate._delta.data_ptr() == before
    assert gate._delta[0].tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
    assert gate._delta[2].tolist() == [1.0] * 4 + [0.0] * 12  # beyond the step: stale, and read by nobody


def test_a_step_of_the_bare_base_alone_is_closed() -> None:
    gate = table()
    gate.write_rows([None, None], [3, 4])
    assert not gate.is_open
    gate.write_rows([None, format_gate_name((("b", 0.1),), "factor")], [3, 4])
    assert gate.is_open


def test_compiled_code_sees_what_is_written_after_it_was_traced() -> None:
    gate = table()
    mixed = torch.compile(gate.mix, backend="eager", fullgraph=True, dynamic=True)
    h = torch.randn(1, 6, 16)
    mixed(h)
    gate.write_rows([format_gate_name((("a", 0.5),), "delta")], [6])
    torch.testing.assert_close(mixed(h), gate.mix(h))
    assert not torch.equal(mixed(h), h)


def test_a_module_that_no_expert_adapts_is_passed_over_until_it_is_written_to() -> None:
    slots, b = AdapterSlots(), torch.zeros(1, 1, 8, 4)
    assert not slots.holds_adapter(b)
    b[0, 0, 3, 1] = 0.5
    assert slots.holds_adapter(b)
    b.zero_()
    assert not slots.holds_adapter(b)


# --------------------------------------------------------------------------- the runners


class Request:
    def __init__(self, name: str, number: int = 1) -> None:
        self.lora_name, self.lora_int_id = name, number


class V1Runner:
    """As much of the V1 runner as the hook touches."""

    def __init__(self, requests: dict[str, Any]) -> None:
        self.requests = {name: type("State", (), {"lora_request": each}) for name, each in requests.items()}
        self.seen: list[Any] = []

    def set_active_loras(self, input_batch: Any, num_scheduled_tokens: Any, extra: int = 0) -> str:
        self.seen.append((input_batch, extra))
        return "stock"


def test_the_v1_hook_writes_in_the_batchs_order_and_goes_on() -> None:
    gate, name = table(), format_gate_name((("b", 1.0),), "delta")
    runner = V1Runner({"x": Request(name), "y": None})
    _hook_v1(runner, [gate])
    batch = type("Batch", (), {"req_ids": ["y", "x", "left over"]})
    assert runner.set_active_loras(batch, np.array([2, 3]), extra=7) == "stock"
    assert runner.seen == [(batch, 7)]
    assert gate._delta[:5, 4].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]


def test_the_v2_hook_writes_and_counts_one_adapter_for_all_soups() -> None:
    gate, state = table(), LoraState(8)
    names = [format_gate_name(((expert, 1.0),), "delta") for expert in EXPERTS]
    from vllm.lora.request import LoRARequest

    for index, name in enumerate(names):
        state.add_request(name, index, LoRARequest(name, 1, "/nowhere"))
    _hook_v2(state, [gate])
    order = [names[2], names[0]]
    prompts, tokens, active = state.make_lora_inputs(order, np.array([2, 0]), np.array([1, 2], dtype=np.int32))
    assert (prompts, tokens) == ((1, 1), (1, 1, 1))
    assert len(active) == 1
    assert gate._delta[:3, 0].tolist() == [0.0, 1.0, 1.0]
    assert gate._delta[:3, 8].tolist() == [1.0, 0.0, 0.0]


# --------------------------------------------------------------------------- what is installed


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_this_vllm_is_one_that_the_gate_was_proven_on() -> None:
    assert Version(vllm.__version__).base_version in PROVEN_RELEASES


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (PunicaWrapperBase.__init__, ["self", "max_num_batched_tokens", "max_batches", "device", "kwargs"]),
        (PunicaWrapperCPU.add_expand, ["self", "y", "x", "lora_b_stacked", "output_slices"]),
        (
            PunicaWrapperCPU.add_lora_linear,
            ["self", "y", "x", "lora_a_stacked", "lora_b_stacked", "scale", "output_slices"],
        ),
        (LoRAModelRunnerMixin.set_active_loras, ["self", "input_batch", "num_scheduled_tokens"]),
        (LoraState.make_lora_inputs, ["self", "req_ids", "idx_mapping", "num_scheduled_tokens"]),
        (LoraState.get_activate_loras, ["self", "req_ids"]),
    ],
)
def test_what_is_hooked_has_the_shape_that_the_hooks_know(function: Any, expected: list[str]) -> None:
    assert parameters(function)[: len(expected)] == expected


def test_what_the_hooks_read_is_there() -> None:
    assert "lora_request" in CachedRequestState.__annotations__
    assert "req_ids" in dir(InputBatch)
    source = inspect.getsource(punica_selector.get_punica_wrapper)
    assert "current_platform.get_punica_wrapper()" in source


def test_the_gpu_wrapper_expands_a_fresh_buffer() -> None:
    """Read in the source: it cannot be imported to run without a GPU."""
    from vllm.lora.punica_wrapper import punica_gpu

    source = inspect.getsource(punica_gpu.PunicaWrapperGPU.add_lora_linear)
    assert source.index("torch.empty(") < source.index("self.add_shrink(") < source.index("self.add_expand(")


def test_the_platform_names_the_gated_wrapper() -> None:
    from vllm.platforms import current_platform

    assert current_platform.get_punica_wrapper() == f"{internals.__name__}.make_gated_punica"
    assert internals._stock().startswith("vllm.")
