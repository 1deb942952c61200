"""Score with vLLM: the engine returns the hidden state of the token that a head reads, and Tureen applies the head.

So vLLM needs to support no head. It runs the backbone with all reward adapters, under one gate or as LoRAs.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from tureen.errors import TureenError
from tureen_serve.runtimes.contract import BatchLimits, Rewards, Row
from tureen_serve.runtimes.on_vllm.adapters import Adapters, borrow_adapter, format_gate_name
from tureen_serve.runtimes.on_vllm.engine import PooledState, VllmEngine
from tureen_serve.runtimes.readout import ReadOut, read_rewards, select_readout

THREADS = 2


class VllmScorer:
    """A backbone and the reward models that use it.

    vLLM forms its own batches and keeps computed prompts. The lane sends two batches at once, so that vLLM does not
    wait while the lane fills the next one.

    Args:
        engine: a pooling engine, which returns the hidden state of the last token.
        readouts: maps an adapter's name to its read-out, whose pooling is ``eos`` or ``last``.
        adapters: the engine's adapters; None for a full checkpoint, which has none.
        limits: the limits of one batch of the lane.
    """

    threads = THREADS
    memory_failures = 0  # vLLM lets texts wait by itself

    def __init__(
        self, engine: VllmEngine, readouts: Mapping[str, ReadOut], adapters: Adapters | None, limits: BatchLimits
    ) -> None:
        self.limits = replace(limits, padded=False)
        self.description = "vLLM, pooled at the last token"
        self._engine = engine
        self._readouts = readouts
        self._adapters = adapters

    @property
    def failure(self) -> str | None:
        """The engine's failure, or None."""
        return self._engine.failure

    @property
    def dead(self) -> bool:
        """Whether the engine is not started again."""
        return self._engine.dead

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        """Score rows: the rewards of each or its error, in order. ``cached`` counts tokens of vLLM's prefix cache.

        With ``fresh`` that cache is not used. Other requests in the engine still change the order of floating-point
        sums, so the last digits may differ between two runs.
        """
        found = self._engine.wait(self._pool_all(rows, fresh))
        sound = [(row, each) for row, each in zip(rows, found, strict=True) if isinstance(each, PooledState)]
        values = iter(self._read(sound))
        return [Rewards(next(values), each.cached) if isinstance(each, PooledState) else each for each in found]

    def close(self) -> None:
        """End the engine."""
        self._engine.close()

    def _read(self, sound: Sequence[tuple[Row, PooledState]]) -> list[tuple[float, ...]]:
        if not sound:
            return []
        states = torch.stack([each.state for _, each in sound]).float()
        return read_rewards([row for row, _ in sound], self._readouts, lambda indices, _: states[indices])

    async def _pool_all(self, rows: Sequence[Row], fresh: bool) -> list[PooledState | TureenError]:
        return await asyncio.gather(*(self._pool(row, fresh) for row in rows))

    async def _pool(self, row: Row, fresh: bool) -> PooledState | TureenError:
        """Compute a row's hidden state, or return its error."""
        try:
            async with borrow_adapter(self._adapters, row.blend, "delta") as adapter:
                salt = format_gate_name(row.blend, "delta")
                return await self._engine.pool(self._read_ids(row), adapter, salt, fresh)
        except TureenError as error:
            return error

    def _read_ids(self, row: Row) -> Sequence[int]:
        """Cut a row's ids after the token that the head reads: later tokens cannot change its hidden state."""
        readout = select_readout(self._readouts, row)
        return row.ids[:-1] if readout.pooling == "last" and readout.eos_appended and len(row.ids) > 1 else row.ids
