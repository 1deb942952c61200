"""The test of the gate at start: two soups by the gate, and the same soups merged into ordinary LoRAs, in one engine.

The merged LoRAs use only vLLM's public API. So an error of the gate, like a hook that vLLM no longer calls, the row of
another token or a rank in the wrong place, shows as a difference before the server serves. Afterwards the probes of the
artifacts are compared with the scores of the training.
"""

import torch
from torch import Tensor

from tureen_serve.runtimes.contract import Weights
from tureen_serve.runtimes.on_vllm.adapters import AdapterReference, GatedAdapters, MergedAdapters
from tureen_serve.runtimes.on_vllm.engine import VllmEngine

LENGTH = 24  # tokens of the text that is compared
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.05}


def find_gate_difference(engine: VllmEngine, gated: GatedAdapters, merged: MergedAdapters, dtype: str) -> str | None:
    """Compare the gate with merged adapters, and describe the difference; None if it is within the tolerance.

    The measure is the mean absolute difference. An engine that generates gives log-probabilities in nats. An engine
    that pools gives hidden states, divided by the mean of their absolute values.
    """
    soups = _make_soups(gated.names)
    gated_states = _run_adapters(engine, [gated.make_reference(weights, "delta") for weights in soups], together=True)
    merged_states = _run_adapters(
        engine, [merged.make_reference(weights, "delta") for weights in soups], together=False
    )
    apart = max(float((a - b).abs().mean()) for a, b in zip(gated_states, merged_states, strict=True))
    if apart <= TOLERANCE[dtype]:
        return None
    return f"the gate differs from merged adapters by {apart:.2g} ({TOLERANCE[dtype]:g} allowed)"


def _make_soups(names: tuple[str, ...]) -> list[Weights]:
    """Make two weight vectors: one in which all weights differ, so that exchanged experts show; one with a negative."""
    rising = tuple((name, round((place + 1) / len(names), 6)) for place, name in enumerate(names))
    return [rising, ((names[0], 1.0), (names[-1], -0.5)) if len(names) > 1 else ((names[0], -0.5),)]


def _run_adapters(engine: VllmEngine, adapters: list[AdapterReference | None], together: bool) -> list[Tensor]:
    """Run the adapters in one batch, or one after the other, since a merged adapter needs the engine's only slot."""
    works = [_run_adapter(engine, adapter) for adapter in adapters]
    if together:
        return [future.result() for future in [engine.submit(work) for work in works]]
    return [engine.wait(work) for work in works]


async def _run_adapter(engine: VllmEngine, adapter: AdapterReference | None) -> Tensor:
    vocabulary = engine.config.model_config.get_vocab_size()
    ids = [(7 * place + 3) % vocabulary for place in range(LENGTH)]
    if engine.config.model_config.runner_type == "pooling":
        state = (await engine.pool(ids, adapter)).state.float()
        return state / state.abs().mean()
    return torch.tensor(await engine.likelihood(ids, 1, adapter))
