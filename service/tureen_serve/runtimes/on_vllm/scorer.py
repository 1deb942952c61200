"""Rewards from vLLM: the engine returns hidden states at the read-out positions, ``tureen_core.heads`` makes rewards.

So vLLM needs to support no head: it runs the backbone, with all reward adapters of it under one gate or one by one.
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
    """One backbone and the reward models on it.

    vLLM batches by itself and keeps computed prompts; two batches of the lane are with it at once, so that it never
    waits for the lane to fill the next.

    Args:
        engine: of the pooling runner, the last token's hidden state.
        readouts: adapter name → its head, all with pooling ``eos`` or ``last``.
        adapters: of the engine; None for a full checkpoint, which is its own reward model.
        limits: what one batch of the lane may hold.
    """

    threads = THREADS

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
        """Why it cannot run now: the engine's."""
        return self._engine.failure

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        """Rewards of each row or its error, in order. ``cached`` tokens come out of vLLM's prefix cache.

        ``fresh`` does not read that cache; what else runs in the engine still shapes its kernels' sums.
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
        return read_rewards([row for row, _ in sound], self._readouts, lambda picks, _: states[picks])

    async def _pool_all(self, rows: Sequence[Row], fresh: bool) -> list[PooledState | TureenError]:
        return await asyncio.gather(*(self._pool(row, fresh) for row in rows))

    async def _pool(self, row: Row, fresh: bool) -> PooledState | TureenError:
        """A row's hidden state, or the error in its place."""
        try:
            async with borrow_adapter(self._adapters, row.blend, "delta") as adapter:
                salt = format_gate_name(row.blend, "delta")
                return await self._engine.pool(self._read_ids(row), adapter, salt, fresh)
        except TureenError as error:
            return error

    def _read_ids(self, row: Row) -> Sequence[int]:
        """The text up to the token that is read: what follows it cannot change a causal model's state there."""
        like = select_readout(self._readouts, row)
        return row.ids[:-1] if like.pooling == "last" and like.eos_appended and len(row.ids) > 1 else row.ids
