"""The one module that knows the inside of vLLM: how the gate comes into its LoRA layers. Runs in vLLM's workers.

vLLM lets the rank activations of one adapter out at one place only, between ``add_shrink`` (h = A·x) and ``add_expand``
(y += B·h) of its Punica wrapper. The wrapper here multiplies h by a gate row for each token in between:

* importing this module (vLLM does so, by ``worker_extension_cls``, before it builds a worker) makes the platform's
  wrapper a gated one;
* its buffers are allocated once and only ever written to, before a step begins and on its stream, so that CUDA graphs
  and compiled code, which have seen their address, replay with the new weights. At ones, as in warm-up, they change
  nothing: there is one variant of every graph;
* :class:`GateExtension` then hooks the runner where it turns a step's requests into tokens (``set_active_loras`` of
  the V1 runner, ``lora_state.make_lora_inputs`` of the V2 runner) and writes the rows that the requests' adapter names
  ask for.

On a CPU the stock operators gather A and B once a token; with one slot they are two matrix products, which
the gated wrapper there does itself.
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
UNHOOKED_TABLES: list[GateTable] = []  # tables whose runner is not hooked yet


def make_gated_punica(tokens: int, **kwargs: Any) -> Any:
    """The platform's Punica wrapper, gated if the engine's configuration has a gate.

    Args:
        tokens: the most tokens of a step; the rest as the stock wrapper takes it.
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
    """Over the stock kernels: ``x`` is a fresh buffer ``[slices, T, R]`` in float32."""

    def add_expand(self: Any, y: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> None:
        stock.add_expand(self, y, table.mix(x), *args, **kwargs)

    return {"add_expand": add_expand}


def _dense(table: GateTable) -> dict[str, Any]:
    """Two matrix products a slice for the one slot, in place of the stock gathers."""
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
            if slots.adapt(b):
                h = table.mix((tokens @ a[0, 0].T).float(), table.averaged)
                out[:, start : start + width].addmm_(h.to(out.dtype), b[0, 0].T.to(out.dtype), alpha=scale)
            start += width

    return {"add_lora_linear": add_lora_linear}


class AdapterSlots:
    """Knows which B hold an adapter: layers, and parts of packed ones, that no expert adapts cost nothing."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, bool]] = {}

    def adapt(self, b: Tensor) -> bool:
        """Whether it holds anything but zeros; it is read again when it was written to since."""
        if b.is_inference():  # these do not count writes
            return True
        place, version = b.data_ptr(), b._version
        if self._seen.get(place, (None,))[0] != version:
            self._seen[place] = version, bool(b.any())
        return self._seen[place][1]


class GateExtension:
    """Mixed into vLLM's worker; its methods are called by ``collective_rpc``."""

    model_runner: Any

    def tureen_hook_runner(self) -> list[str]:
        """Hook the runner of this worker.

        Returns:
            The hooked methods; nothing if this worker has no gate.
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
        """One of each id: vLLM counts these to choose a captured graph, and all soups are one adapter."""
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
    """Make the platform name :func:`make_gated_punica`, once; what it named before is returned by the result."""
    platform = type(current_platform)
    stock: Callable[[], str] = platform.get_punica_wrapper
    if getattr(stock, "tureen", None) is not None:
        return stock.tureen  # type: ignore[attr-defined,no-any-return]
    named = lambda *_: f"{__name__}.make_gated_punica"  # noqa: E731
    named.tureen = stock  # type: ignore[attr-defined]
    platform.get_punica_wrapper = named
    return stock


_stock = _install()
