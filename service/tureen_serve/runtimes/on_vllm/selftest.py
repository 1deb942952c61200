"""The gate's test at start: two soups by the gate against the same two merged into ordinary LoRAs, in one engine.

The merged ones pass vLLM's own public path, so a hook that has moved, a row laid to the wrong token or a rank out of
place shows as a difference before anybody is served. (Probes then hold both against what training saw.)
"""

import torch
from torch import Tensor

from tureen_serve.runtimes.contract import Weights
from tureen_serve.runtimes.on_vllm.adapters import AdapterReference, GatedAdapters, MergedAdapters
from tureen_serve.runtimes.on_vllm.engine import VllmEngine

LENGTH = 24
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.05}


def find_gate_difference(engine: VllmEngine, gated: GatedAdapters, merged: MergedAdapters, dtype: str) -> str | None:
    """None if the gate agrees with merged adapters, else by how much it does not.

    Compared is the mean absolute difference: of log-probabilities in nats where the engine generates, of hidden states
    in units of their own mean size where it pools.
    """
    soups = _soups(gated.names)
    by_gate = _seen(engine, [gated.make_reference(weights, "delta") for weights in soups], together=True)
    by_merge = _seen(engine, [merged.make_reference(weights, "delta") for weights in soups], together=False)
    apart = max(float((a - b).abs().mean()) for a, b in zip(by_gate, by_merge, strict=True))
    if apart <= TOLERANCE[dtype]:
        return None
    return f"the gate differs from merged adapters by {apart:.2g} ({TOLERANCE[dtype]:g} allowed)"


def _soups(names: tuple[str, ...]) -> list[Weights]:
    """Two vectors that no layout of the experts can confuse, one with a negative weight."""
    rising = tuple((name, round((place + 1) / len(names), 6)) for place, name in enumerate(names))
    return [rising, ((names[0], 1.0), (names[-1], -0.5)) if len(names) > 1 else ((names[0], -0.5),)]


def _seen(engine: VllmEngine, adapters: list[AdapterReference | None], together: bool) -> list[Tensor]:
    """One batch for all, or one after the other: a merged adapter needs the only slot for itself."""
    works = [_read(engine, adapter) for adapter in adapters]
    if together:
        return [future.result() for future in [engine.submit(work) for work in works]]
    return [engine.wait(work) for work in works]


async def _read(engine: VllmEngine, adapter: AdapterReference | None) -> Tensor:
    vocabulary = engine.config.model_config.get_vocab_size()
    ids = [(7 * place + 3) % vocabulary for place in range(LENGTH)]
    if engine.config.model_config.runner_type == "pooling":
        state = (await engine.pool(ids, adapter)).state.float()
        return state / state.abs().mean()
    return torch.tensor(await engine.likelihood(ids, 1, adapter))
