"""The loops that look for work: one validates and finishes batches, the others run chunks, each under a lease.

A lease is extended while its work goes on. Work is cancelled when its lease is lost, or when the server shuts down;
work that was not committed by then is given back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from tureen.errors import TureenError, Unavailable
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.batches.io_threads import IoThreads
from tureen_serve.batches.leases import LeaseLost, Leases
from tureen_serve.batches.records import Lease
from tureen_serve.batches.worker import Worker
from tureen_serve.inference.engine import Engine

LOG = logging.getLogger(__name__)
LONGEST_WAIT = 60.0
PATIENCE = 10.0


class Runner:
    """Works until it is closed. Create it on the event loop.

    Args:
        engine: returns the engine; None while nothing should run on it.
    """

    def __init__(
        self, worker: Worker, leases: Leases, options: BatchSettings, io: IoThreads, engine: Callable[[], Engine | None]
    ) -> None:
        self._worker = worker
        self._leases = leases
        self._options = options
        self._io = io
        self._engine = engine
        self._leaving = False
        self._waking = asyncio.Event()
        self._working: set[asyncio.Task[None]] = set()
        self._failing: set[int] = set()
        steps = [self._tend_batches, *[self._run_chunk] * options.chunks]
        self._loops = [asyncio.create_task(self._run_loop(number, step)) for number, step in enumerate(steps)]

    @property
    def failing(self) -> bool:
        """Whether a loop could not look for work when it last tried."""
        return bool(self._failing)

    def wake(self) -> None:
        """Let all loops look now: there is new work, or work was voided."""
        waking, self._waking = self._waking, asyncio.Event()
        waking.set()

    async def close(self) -> None:
        """Cancel unfinished work and give it back."""
        self._leaving = True
        self._worker.leave()
        for work in self._working:
            work.cancel()
        self.wake()
        await asyncio.gather(*self._loops)

    # ----------------------------------------------------------------------- loops

    async def _run_loop(self, number: int, step: Callable[[], Awaitable[bool]]) -> None:
        while not self._leaving:
            waking, wait = self._waking, self._options.poll_seconds
            try:
                busy = await step()
                self._failing.discard(number)
            except Exception as error:  # the store may come back later
                LOG.error("batches wait, and look for work again soon: %s", error, exc_info=_unexpected(error))
                busy, wait = False, PATIENCE
                self._failing.add(number)
            if not busy and not self._leaving:
                await _wait_for_event(waking, wait)

    async def _tend_batches(self) -> bool:
        """Validate or finish one batch; if there is none, tidy up."""
        if await self._io(self._leases.upkeep.expire_batches):
            self.wake()
        lease = await self._io(self._leases.take_batch)
        if lease is None:
            await self._worker.tidy()
            return False
        validating = lease.status == "validating"
        await self._hold(lease, self._worker.validate(lease) if validating else self._worker.finish(lease))
        return True

    async def _run_chunk(self) -> bool:
        """Run one chunk, if there is one."""
        engine = self._engine()
        lease = await self._io(self._leases.take_chunk) if engine else None
        if engine is None or lease is None or lease.chunk is None:
            return False
        await self._hold(lease, self._worker.run(engine, lease, lease.chunk))
        return True

    # ----------------------------------------------------------------------- leases

    async def _hold(self, lease: Lease, work: Coroutine[Any, Any, None]) -> None:
        """Do leased work and extend its lease meanwhile; give failed work back."""
        working = asyncio.create_task(work)
        self._working.add(working)
        beating = asyncio.create_task(self._keep_extending(lease, working))
        if self._leaving:
            working.cancel()
        try:
            await asyncio.wait({working})
        finally:
            self._working.discard(working)
            for task in (working, beating):
                task.cancel()
            await asyncio.gather(working, beating, return_exceptions=True)
        await self._settle(lease, working)

    async def _settle(self, lease: Lease, working: asyncio.Task[None]) -> None:
        if working.cancelled():
            await self._io(self._leases.release, lease)
        elif isinstance(error := working.exception(), LeaseLost):
            LOG.info("%s", error)
        elif error is not None:
            wait = min(2.0 ** min(lease.chunk.refusals if lease.chunk else 2, 10), LONGEST_WAIT)
            LOG.warning("%s waits %g s: %s", lease.batch_id, wait, error, exc_info=_unexpected(error))
            await self._io(self._leases.release, lease, wait, refused=True)

    async def _keep_extending(self, lease: Lease, working: asyncio.Task[None]) -> None:
        while True:
            await _wait_for_event(self._waking, self._options.lease_seconds / 4)
            try:
                await self._io(self._leases.extend, lease)
            except LeaseLost:
                working.cancel()
                return
            except Unavailable:  # the next try may reach the store; until then the lease holds or runs out
                continue


async def _wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most ``seconds``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # wait_for may swallow a cancellation that comes with the event
            await event.wait()


def _unexpected(error: BaseException) -> BaseException | None:
    """Return the error if the log should show its traceback."""
    return None if isinstance(error, TureenError) else error
