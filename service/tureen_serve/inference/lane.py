"""The only concurrency: an asyncio door on one side, worker threads with one runtime on the other.

What crosses: rows and jobs inward under a lock, outcomes outward by ``call_soon_threadsafe``. The event loop never
computes and never waits for a worker; a worker never touches a future or a queue.
"""

import asyncio
import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from tureen.errors import TureenError, Unavailable

LOG = logging.getLogger(__name__)
LONGEST_WAIT = 60
RESTARTING = 10
RECENT = 0.2


@dataclass(frozen=True, slots=True)
class LaneRun:
    """What a lane's worker did in one go: for metrics. Told on the worker's thread."""

    lane: str
    rows: int
    tokens: int
    cached: int
    failed: int
    seconds: float


Observer = Callable[[LaneRun], None]


class HealthSource(Protocol):
    """What a lane asks of any runtime."""

    @property
    def failure(self) -> str | None:
        """None while it can run, else the sentence that says why not."""


def ignore_run(ran: LaneRun) -> None:
    """Nobody watches."""


class Lane(ABC):
    """One runtime's door: its health and its speed.

    Args:
        name: what errors and metrics call it.
        runtime: says by its ``failure`` whether it can run at the moment.
        observe: told what ran.

    Attributes:
        tokens_per_second: measured, the recent past weighing most; 0 before the first run.
    """

    def __init__(self, name: str, runtime: HealthSource, observe: Observer) -> None:
        self.name = name
        self.tokens_per_second = 0.0
        self._runtime = runtime
        self._observe = observe
        self._died: str | None = None
        self._closing = False
        self._streams = 1

    @property
    def failure(self) -> str | None:
        """None, or the sentence that says why nothing runs here: for good, or until the runtime is back."""
        return self._died or self._runtime.failure

    @abstractmethod
    async def close(self) -> None:
        """End what runs and free the weights."""

    def _check_open(self) -> asyncio.AbstractEventLoop:
        """The caller's loop, if anything can be taken in."""
        if self.failure:
            raise Unavailable(self.failure, code="engine_dead", retry_after=None if self._died else RESTARTING)
        if self._closing:
            raise Unavailable("the server is shutting down; ask another replica", code="draining", retry_after=1)
        return asyncio.get_running_loop()

    def _refuse(self, tokens: int) -> Unavailable:
        """Saturation, with the time that the queue needs at the measured speed."""
        seconds = math.ceil(tokens / self.tokens_per_second) if self.tokens_per_second else 1
        message = f"{self.name} is saturated: {tokens} tokens wait; try again later"
        return Unavailable(message, code="queue_full", retry_after=min(max(seconds, 1), LONGEST_WAIT))

    def _note(self, ran: LaneRun) -> None:
        speed = self._streams * ran.tokens / max(ran.seconds, 1e-6)
        known = self.tokens_per_second
        self.tokens_per_second = known + RECENT * (speed - known) if known else speed
        self._observe(ran)


class WorkerLane(Lane):
    """A lane whose runtime is called from worker threads.

    Args:
        threads: how many; they share the lane's state under its lock.
    """

    def __init__(self, name: str, runtime: HealthSource, observe: Observer, threads: int = 1) -> None:
        super().__init__(name, runtime, observe)
        self._streams = threads
        self._state = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [threading.Thread(target=self._live, name=f"lane {name}", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _live(self) -> None:
        try:
            self._work()
        except Exception as error:
            LOG.exception("lane %s has died", self.name)
            reason = error.message if isinstance(error, TureenError) else f"{type(error).__name__}: {error}"
            with self._state:
                self._died = f"{self.name} has died: {reason}"
                self._abandon(Unavailable(self._died, code="engine_dead"))

    @abstractmethod
    def _work(self) -> None:
        """Run until the lane closes; on each worker's thread."""

    @abstractmethod
    def _abandon(self, error: TureenError) -> None:
        """Tell all who wait that nothing will come; under the lock."""

    def _on_loop(self, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it all who waited
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback)

    async def _stop(self) -> None:
        with self._state:
            self._closing = True
            self._state.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
