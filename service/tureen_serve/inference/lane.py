"""Lanes: the only place where the event loop and the threads of the models meet.

A lane takes requests on the event loop and runs one runtime in worker threads. Rows and jobs go to the workers under a
lock. Outcomes come back by ``call_soon_threadsafe``. The event loop never computes and never waits for a worker. A
worker never touches a future or an asyncio queue.
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
RESTARTING = 10  # seconds after which callers try again while a runtime restarts
RECENT = 0.2  # weight of the last run in the measured speed


@dataclass(frozen=True, slots=True)
class LaneRun:
    """One batch or step of a lane, for metrics."""

    lane: str
    rows: int
    tokens: int
    cached: int
    failed: int
    seconds: float


Observer = Callable[[LaneRun], None]


class HealthSource(Protocol):
    """A runtime, as far as every lane needs it."""

    @property
    def failure(self) -> str | None:
        """Why the runtime cannot run now, or None if it can."""


def ignore_run(ran: object) -> None:
    """Do nothing: an observer for lanes without metrics."""


class Lane(ABC):
    """Takes requests for one runtime, and knows the runtime's health and speed.

    Args:
        name: for errors and metrics.
        runtime: its ``failure`` says whether it can run now.
        observe: called with every run.

    Attributes:
        tokens_per_second: a moving average of the measured speed; 0 before the first run.
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
        """Why the lane cannot run, for ever or until the runtime has restarted; None if it can."""
        return self._died or self._runtime.failure

    @abstractmethod
    async def close(self) -> None:
        """Stop the work and free the weights."""

    def _check_open(self) -> asyncio.AbstractEventLoop:
        """Return the caller's event loop.

        Raises:
            Unavailable: the lane takes no new work.
        """
        if self.failure:
            raise Unavailable(self.failure, code="engine_dead", retry_after=None if self._died else RESTARTING)
        if self._closing:
            raise Unavailable("the server is shutting down; try another server", code="draining", retry_after=1)
        return asyncio.get_running_loop()

    def _refuse(self, tokens: int) -> Unavailable:
        """Make the error of a full queue. ``retry_after`` is the time that the queue needs at the measured speed."""
        seconds = math.ceil(tokens / self.tokens_per_second) if self.tokens_per_second else 1
        message = f"the queue of {self.name} is full: {tokens} tokens wait; try again later"
        return Unavailable(message, code="queue_full", retry_after=min(max(seconds, 1), LONGEST_WAIT))

    def _note(self, ran: LaneRun) -> None:
        speed = self._streams * ran.tokens / max(ran.seconds, 1e-6)
        known = self.tokens_per_second
        self.tokens_per_second = known + RECENT * (speed - known) if known else speed
        self._observe(ran)


class WorkerLane(Lane):
    """A lane whose runtime is called from worker threads.

    Args:
        threads: the number of workers. They share the state of the lane under its lock.
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
        """Run until the lane closes. Called once on each worker's thread."""

    @abstractmethod
    def _abandon(self, error: TureenError) -> None:
        """Fail all waiting and running requests with ``error``. Called under the lock."""

    def _on_loop(self, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended, so nobody waits
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback)

    async def _stop(self) -> None:
        with self._state:
            self._closing = True
            self._state.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
