"""Arguments of vLLM's engines: the share of the GPU's memory, and the sizes of the LoRA layers."""

from collections.abc import Mapping, Sequence
from typing import Any

from tureen_serve.runtimes.on_vllm.adapters import Adapters, GatedAdapters, round_up_rank
from tureen_serve.runtimes.on_vllm.internals import CONFIG, EXTENSION
from tureen_serve.runtimes.sources import LoadError

TOTAL = 0.9  # of the GPU's memory, if no share is configured
GATE_VERSION = 1


def divide_memory(engines: Sequence[str], given: Mapping[str, float]) -> dict[str, float]:
    """Divide a GPU's memory among engines. Engines without a configured share divide the rest of 0.9 equally.

    Args:
        engines: the names of all engines.
        given: the configured shares, 0 to 1, by the engine's name.

    Raises:
        LoadError: a share names an unknown engine, or the shares add up to more than one GPU.
    """
    strange = sorted(set(given) - set(engines))
    if strange:
        raise LoadError(f"vllm.memory.{strange[0]}: no engine has this name; use {', '.join(engines)}")
    taken = sum(given.values())
    rest = [name for name in engines if name not in given]
    if taken > 1 or (rest and taken >= TOTAL):
        shares = " + ".join(f"{share:g} ({name})" for name, share in given.items())
        left = f", and {', '.join(rest)} needs some too" if rest else ""
        raise LoadError(f"vllm.memory: {shares} is {taken:g} of a GPU{left}; lower them, the sum may be at most 1")
    return dict(given) | {name: (TOTAL - taken) / len(rest) for name in rest}


def make_lora_arguments(adapters: Adapters) -> dict[str, Any]:
    """Make the arguments of an engine for these adapters. For gated ones they also configure the gate's extension."""
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
