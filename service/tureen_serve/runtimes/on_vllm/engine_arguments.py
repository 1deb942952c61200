"""Arguments of vLLM's engines: each one's share of the GPU's memory, and what its LoRA layers must hold."""

from collections.abc import Mapping, Sequence
from typing import Any

from tureen_serve.runtimes.artifacts import LoadError
from tureen_serve.runtimes.on_vllm.adapters import Adapters, GatedAdapters, round_up_rank
from tureen_serve.runtimes.on_vllm.internals import CONFIG, EXTENSION

TOTAL = 0.9
GATE_VERSION = 1


def divide_memory(engines: Sequence[str], given: Mapping[str, float]) -> dict[str, float]:
    """Each engine's share of a GPU's memory: as configured, and the others alike in what is left of nine tenths.

    Raises:
        LoadError: a share is given to no engine, or they add up to more than a GPU.
    """
    strange = sorted(set(given) - set(engines))
    if strange:
        raise LoadError(f"vllm.memory.{strange[0]}: no engine is called so; there is {', '.join(engines)}")
    taken = sum(given.values())
    rest = [name for name in engines if name not in given]
    if taken > 1 or (rest and taken >= TOTAL):
        told = " + ".join(f"{share:g} ({name})" for name, share in given.items())
        left = f", and {', '.join(rest)} needs some too" if rest else ""
        raise LoadError(f"vllm.memory: {told} is {taken:g} of a GPU{left}; shares add up to 1 at the most")
    return dict(given) | {name: (TOTAL - taken) / len(rest) for name in rest}


def make_lora_arguments(adapters: Adapters) -> dict[str, Any]:
    """Arguments of an engine that loads these adapters; gated ones also name the extension and its experts."""
    arguments: dict[str, Any] = {
        "enable_lora": True,
        "max_loras": adapters.slots,
        "max_lora_rank": round_up_rank(adapters.rank),
        "max_cpu_loras": 2 * adapters.slots,
        "lora_target_modules": list(adapters.targets),
    }
    if isinstance(adapters, GatedAdapters):
        spec = {"experts": list(adapters.names), "ranks": list(adapters.ranks), "factor": adapters.supports_factor}
        arguments["worker_extension_cls"] = EXTENSION
        arguments["additional_config"] = {CONFIG: {"version": GATE_VERSION, **spec}}
    return arguments
