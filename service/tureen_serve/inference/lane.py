"""Lanes: the only place where the event loop and the threads of the models meet.

A lane takes requests on the event loop and runs one runtime in worker threads. Rows and jobs go to the workers under a
lock. Outcomes come back by ``call_soon_threadsafe``. The event loop never computes and never waits for a worker. A
worker never touches a future or an asyncio queue.
"""

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from tureen.errors import TureenError, Unavailable
from tureen_serve.inference.lane_speed import LaneSpeed
from tureen_serve.trace_marks import TraceMark

LOG = logging.getLogger(__name__)
RESTARTING = 10  # seconds after which callers try again while a runtime or the server restarts


@dataclass(frozen=True, slots=True)
class LaneRun:
    """One batch or step of a lane, for metrics and traces. ``marks`` are those of the requests whose texts it read."""

    lane: str
    rows: int
    tokens: int
    cached: int
    failed: int
    seconds: float
    marks: tuple[TraceMark, ...] = ()


Observer = Callable[[LaneRun], None]


class HealthSource(Protocol):
    """A runtime, as far as every lane needs it."""

    @property
    def failure(self) -> str | None:
        """Why the runtime cannot run now, or None if it can."""

    @property
    def dead(self) -> bool:
        """Whether the runtime can never run again in this process."""

    @property
    def memory_failures(self) -> int:
        """How often memory has run out."""


def ignore_run(ran: object) -> None:
    """Do nothing: an observer for lanes without metrics."""


class Lane(ABC):
    """Takes requests for one runtime, and knows the runtime's health and speed.

    Args:
        name: for errors and metrics.
        runtime: its ``failure`` says whether it can run now.
        observe: called with every run.

    Attributes:
        speed: how fast it is.
    """

    def __init__(self, name: str, runtime: HealthSource, observe: Observer) -> None:
        self.name = name
        self.speed = LaneSpeed()
        self._runtime = runtime
        self._observe = observe
        self._died: str | None = None
        self._closing = False
        self._streams = 1

    @property
    def failure(self) -> str | None:
        """Why the lane cannot run, for ever or until the runtime has restarted; None if it can."""
        return self._died or self._runtime.failure

    @property
    def death(self) -> str | None:
        """Why the lane can never run again in this process; None if it runs, or waits for a restart of its runtime."""
        return self.failure if self._died or self._runtime.dead else None

    @property
    def memory_failures(self) -> int:
        """How often memory has run out."""
        return self._runtime.memory_failures

    @property
    @abstractmethod
    def busy_seconds(self) -> float:
        """How long the forward pass runs that began first; 0 if none runs."""

    @property
    @abstractmethod
    def has_work(self) -> bool:
        """Whether texts wait or run."""

    @abstractmethod
    def abandon(self, error: Unavailable) -> None:
        """Fail all that waits or runs, and refuse what comes: the process ends."""

    @abstractmethod
    async def close(self) -> None:
        """Stop the work and free the weights."""

    def _check_open(self) -> asyncio.AbstractEventLoop:
        """Return the caller's event loop.

        Raises:
            Unavailable: the lane takes no new work.
        """
        if self.failure:
            raise Unavailable(self.failure, code="engine_dead", retry_after=RESTARTING)
        if self._closing:
            raise Unavailable("the server is shutting down; try another server", code="draining", retry_after=1)
        return asyncio.get_running_loop()

    def _refuse(self, tokens: int) -> Unavailable:
        """Make the error of a full queue. ``retry_after`` is the time that the queue needs at the measured speed."""
        message = f"the queue of {self.name} is full: {tokens} tokens wait; try again later"
        return Unavailable(message, code="queue_full", retry_after=self.speed.find_wait(tokens))

    def _note(self, ran: LaneRun, full: bool = False) -> None:
        """Note a run. ``full``: others had to wait for it."""
        self.speed.note(self._streams * ran.tokens, ran.seconds, full)
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
        self._passes: dict[int, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [threading.Thread(target=self._live, name=f"lane {name}", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def busy_seconds(self) -> float:
        """How long the forward pass runs that began first; 0 if none runs."""
        began = min(list(self._passes.values()), default=None)
        return 0.0 if began is None else time.monotonic() - began

    def abandon(self, error: Unavailable) -> None:
        """Fail all that waits or runs, and refuse what comes: the process ends."""
        with self._state:
            self._died = self._died or error.message
            self._abandon(error)

    def _live(self) -> None:
        try:
            self._work()
        except BaseException as error:  # a panic in Rust code is no Exception
            LOG.exception("lane %s has died", self.name)
            reason = error.message if isinstance(error, TureenError) else f"{type(error).__name__}: {error}"
            died = f"{self.name} has died: {reason}"
            self.abandon(Unavailable(died, code="engine_dead", retry_after=RESTARTING))

    @contextmanager
    def _timed_pass(self) -> Iterator[None]:
        """Note the begin of a forward pass on this thread."""
        self._passes[threading.get_ident()] = time.monotonic()
        try:
            yield
        finally:
            del self._passes[threading.get_ident()]

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
        """Let the workers end, and wait for them. A dead lane's are not waited for: one may be stuck."""
        with self._state:
            self._closing = True
            self._state.notify_all()
        for thread in () if self._died else self._threads:
            await asyncio.to_thread(thread.join)
