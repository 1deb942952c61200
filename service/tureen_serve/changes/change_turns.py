"""Changes of the models in turns: one at a time, given up when the caller leaves or the server ends, and counted."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tureen.errors import Conflict, TureenError, Unavailable
from tureen_serve.telemetry import Metrics

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]


class ChangeTurns:
    """Lets changes run.

    Args:
        metrics: count the changes.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._turn = asyncio.Lock()
        self._names: set[str] = set()
        self._ending = asyncio.Event()

    async def make(self, action: str, name: str, work: Work[T]) -> T:
        """Make a change of one reward, when earlier changes of others have ended.

        Args:
            action: one of :data:`tureen_serve.telemetry.CHANGES`.

        Raises:
            Conflict: another change of this reward runs or waits.
            Unavailable: the server ends.
            TureenError: the error of the work.
        """
        began = time.monotonic()
        result, seconds = "failed", None
        try:
            found = await self._take_turn(name, work)
            result, seconds = "done", time.monotonic() - began
            return found
        except TureenError as error:
            result = "refused" if error.status < 500 else "failed"
            raise
        finally:
            self._metrics.count_change(action, result, seconds)

    def stop(self) -> None:
        """Give up the change that runs, and refuse others."""
        self._ending.set()

    async def wait(self) -> None:
        """Wait until no change runs."""
        async with self._turn:
            pass

    async def _take_turn(self, name: str, work: Work[T]) -> T:
        if name in self._names:
            message = f"another change of {name or 'the configuration'} runs; wait for its end"
            raise Conflict(message, param="name", code="change_running")
        self._names.add(name)
        try:
            async with self._turn:
                return await self._run(work())
        finally:
            self._names.discard(name)

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        task, ending = asyncio.create_task(work), asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                message = "the server is shutting down, and its models stay as they are"
                raise Unavailable(message, code="draining", retry_after=1)
            return task.result()
        finally:
            for each in (task, ending):
                each.cancel()
            await asyncio.gather(task, ending, return_exceptions=True)
