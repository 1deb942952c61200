"""Put the gate into vLLM's LoRA layers. Only this module uses vLLM's internals. It runs in vLLM's workers.

vLLM's Punica wrapper computes the rank activations h = A·x in ``add_shrink`` and y += B·h in ``add_expand``. The gated
wrapper multiplies h by a gate row for each token in between:

* vLLM imports this module before it builds a worker, because of ``worker_extension_cls``. The import replaces the
  platform's wrapper by the gated one.
* The buffers of the rows are allocated once. They are written before a step begins, on its stream. So CUDA graphs and
  compiled code, which keep the buffers' addresses, run with the new weights. In warm-up all rows are ones and change
  nothing, so each graph has one variant.
* :class:`GateExtension` hooks the runner where it turns the requests of a step into tokens: ``set_active_loras`` of the
  V1 runner, ``lora_state.make_lora_inputs`` of the V2 runner. The hook writes the rows that the requests' adapter names
  describe.

On a CPU the stock operators gather A and B for every token. With one adapter slot two matrix products are enough, and
the gated wrapper computes these itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from vllm.config import get_current_vllm_config
from vllm.platforms import current_platform
from vllm.utils.import_utils import resolve_obj_by_qualname

from tureen_serve.runtimes.on_vllm.gate_table import GateTable

PROVEN_RELEASES = {
    "0.25.0": "measured on an H200 with the V1 runner, CUDA graphs and torch.compile",
    "0.32.0": "exact on a CPU in this project's CI, V1 runner",
    "0.33.0": "its hooks read in the source, the same as those of 0.32",
}
CONFIG = "tureen_gate"
EXTENSION = f"{__name__}.GateExtension"
UNHOOKED_TABLES: list[GateTable] = []  # tables of this worker, until its runner is hooked


def make_gated_punica(tokens: int, **kwargs: Any) -> Any:
    """Make the platform's Punica wrapper, gated if the engine's configuration has a gate.

    Args:
        tokens: the largest number of tokens of a step.
        kwargs: the other arguments of the stock wrapper.
    """
    stock = resolve_obj_by_qualname(_stock())
    spec = (get_current_vllm_config().additional_config or {}).get(CONFIG)
    if spec is None:
        return stock(tokens, **kwargs)
    rank = kwargs["lora_config"].max_lora_rank
    table = GateTable(tokens, rank, spec["experts"], spec["ranks"], spec["factor"], kwargs["device"])
    UNHOOKED_TABLES.append(table)
    members = _dense(table) if current_platform.is_cpu() else _fused(stock, table)
    return type(f"Gated{stock.__name__}", (stock,), members)(tokens, **kwargs)


def _fused(stock: Any, table: GateTable) -> dict[str, Any]:
    """Make the method for stock kernels. Its ``x`` is a new buffer ``[slices, T, R]`` in float32."""

    def add_expand(self: Any, y: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> None:
        stock.add_expand(self, y, table.mix(x), *args, **kwargs)

    return {"add_expand": add_expand}


def _dense(table: GateTable) -> dict[str, Any]:
    """Make the method for CPUs: two matrix products for each slice, instead of a gather for each token."""
    slots = AdapterSlots()

    def add_lora_linear(
        self: Any,  # noqa: ARG001
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Sequence[Tensor],
        lora_b_stacked: Sequence[Tensor],
        scale: float,
        output_slices: Sequence[int],
        **_: Any,
    ) -> None:
        if not table.is_open:
            return
        tokens, out = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        start = 0
        for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            if slots.holds_adapter(b):
                h = table.mix((tokens @ a[0, 0].T).float(), table.averaged)
                out[:, start : start + width].addmm_(h.to(out.dtype), b[0, 0].T.to(out.dtype), alpha=scale)
            start += width

    return {"add_lora_linear": add_lora_linear}


class AdapterSlots:
    """Remembers which B of the LoRA layers are not zero, so that modules without an adapter are skipped."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, bool]] = {}

    def holds_adapter(self, b: Tensor) -> bool:
        """Tell whether B has a value that is not zero. B is read again only if it was written to since."""
        if b.is_inference():  # an inference tensor does not count its writes
            return True
        address, version = b.data_ptr(), b._version
        if self._seen.get(address, (None,))[0] != version:
            self._seen[address] = version, bool(b.any())
        return self._seen[address][1]


class GateExtension:
    """Methods that vLLM adds to its worker class. The engine calls them by ``collective_rpc``."""

    model_runner: Any

    def tureen_hook_runner(self) -> list[str]:
        """Hook the runner of this worker.

        Returns:
            The names of the hooked methods; empty if this worker has no gate.
        """
        tables = tuple(UNHOOKED_TABLES)
        UNHOOKED_TABLES.clear()
        if not tables:
            return []
        state = getattr(self.model_runner, "lora_state", None)
        return _hook_v2(state, tables) if state is not None else _hook_v1(self.model_runner, tables)


def _hook_v1(runner: Any, tables: Sequence[GateTable]) -> list[str]:
    stock: Callable[..., Any] = runner.set_active_loras

    def set_active_loras(input_batch: Any, num_scheduled_tokens: Any, *args: Any, **kwargs: Any) -> Any:
        requests = (runner.requests[name] for name in input_batch.req_ids[: len(num_scheduled_tokens)])
        _write(tables, [_adapter_name(request.lora_request) for request in requests], num_scheduled_tokens)
        return stock(input_batch, num_scheduled_tokens, *args, **kwargs)

    runner.set_active_loras = set_active_loras
    return ["V1 set_active_loras"]


def _hook_v2(state: Any, tables: Sequence[GateTable]) -> list[str]:
    stock: Callable[..., Any] = state.make_lora_inputs

    def make_lora_inputs(req_ids: Any, idx_mapping: Any, num_scheduled_tokens: Any) -> Any:
        _write(tables, [_adapter_name(state.lora_requests.get(name)) for name in req_ids], num_scheduled_tokens)
        return stock(req_ids, idx_mapping, num_scheduled_tokens)

    def get_activate_loras(req_ids: Any) -> set[Any]:
        """Return one request for each adapter id. vLLM counts them to choose a CUDA graph; all soups have one id."""
        requests = (state.lora_requests.get(name) for name in req_ids)
        return set({request.lora_int_id: request for request in requests if request is not None}.values())

    state.make_lora_inputs, state.get_activate_loras = make_lora_inputs, get_activate_loras
    return ["V2 make_lora_inputs", "V2 get_activate_loras"]


def _write(tables: Sequence[GateTable], names: Sequence[str | None], tokens: Sequence[int]) -> None:
    for table in tables:
        table.write_rows(names, tokens)


def _adapter_name(request: Any) -> str | None:
    return None if request is None else request.lora_name


def _install() -> Callable[[], str]:
    """Let the platform use :func:`make_gated_punica`. The result returns the name of the stock wrapper."""
    platform = type(current_platform)
    stock: Callable[[], str] = platform.get_punica_wrapper
    if getattr(stock, "tureen", None) is not None:
        return stock.tureen  # type: ignore[attr-defined,no-any-return]
    named = lambda *_: f"{__name__}.make_gated_punica"  # noqa: E731
    named.tureen = stock  # type: ignore[attr-defined]
    platform.get_punica_wrapper = named
    return stock


_stock = _install()
