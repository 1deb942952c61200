"""The lane of a policy family whose texts another server writes: places, retries, and waiting as the upstream asks.

An upstream that says when to come again is left alone until then by all requests, since it counts them together. A
request that cannot wait so long is refused with that time. A text that has begun is never asked for again.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from tureen.errors import TureenError, Unavailable
from tureen.retry import Retries
from tureen_serve.inference.demand import find_seconds_left
from tureen_serve.inference.lane import Lane, LaneRun, Observer, ignore_run
from tureen_serve.inference.text_turns import TextLengths, TextTurn
from tureen_serve.runtimes.contract import TextDelta
from tureen_serve.runtimes.upstream_contract import Upstream, UpstreamError, UpstreamJob

T = TypeVar("T")
LONGEST_PAUSE = 60.0  # seconds without a request, whatever the upstream asks for: it may have changed its mind


@dataclass(eq=False, slots=True)
class UpstreamTurn(TextTurn):
    """A text that waits or is written. It has ``started`` once it has a place; ``wait`` ends what it waits for."""

    started: bool = False
    wait: asyncio.Timeout | None = None


class UpstreamLane(Lane):
    """An upstream and the texts that it is asked for. It is used on one event loop.

    Args:
        name: for errors and metrics.
        upstream: asks for one text at a time.
        queue_jobs: the largest number of texts that may wait for a place.
        observe: called after every text.
    """

    def __init__(self, name: str, upstream: Upstream, queue_jobs: int = 256, observe: Observer = ignore_run) -> None:
        super().__init__(name, upstream, observe)
        self.upstream = upstream
        self._queue_jobs = queue_jobs
        self._streams = upstream.concurrency
        self._places = asyncio.Semaphore(upstream.concurrency)
        self._open: dict[UpstreamTurn, None] = {}
        self._lengths = TextLengths()
        self._retries = Retries(limit=upstream.retries, patience=math.inf)
        self._paused_until = 0.0
        self._end: TureenError | None = None

    @property
    def waiting(self) -> int:
        """The number of texts that wait for a place."""
        return len(self._open) - self.running

    @property
    def running(self) -> int:
        """The number of texts that the upstream is asked for."""
        return sum(turn.started for turn in self._open)

    @property
    def has_work(self) -> bool:
        """Whether texts wait or are written."""
        return bool(self._open)

    @property
    def busy_seconds(self) -> float:
        """Return 0: nothing of this process is stuck when an upstream is slow, which has a time limit of its own."""
        return 0.0

    async def stream(self, job: UpstreamJob) -> AsyncGenerator[TextDelta]:
        """Yield the deltas of one text. Closing the iterator closes the connection to the upstream.

        Raises:
            Unprocessable: the upstream is not sent a field of the job.
            TureenError: the upstream failed; see :mod:`tureen_serve.runtimes.on_upstream.reply_faults`.
            Unavailable: too many texts wait, or they need longer than the caller's deadline; or the server ends.
        """
        self.upstream.check(job)
        self._check_open()
        if self.waiting >= self._queue_jobs:
            raise self._refuse(sum(turn.job.sampling.max_tokens for turn in self._open if not turn.started))
        if self._places.locked():
            self.speed.check_deadline(self.name, self._lengths.count_ahead(self._list_waiting()))
        turn = UpstreamTurn(job)
        self._open[turn] = None
        try:
            await self._until_ended(turn, self._places.acquire())
            try:
                turn.started = True
                async with aclosing(self._write(turn, job)) as deltas:
                    async for delta in deltas:
                        yield delta
            finally:
                self._places.release()
        finally:
            del self._open[turn]

    def abandon(self, error: Unavailable) -> None:
        """End all texts with an error, and refuse what comes: the process ends."""
        self._died = self._died or error.message
        self._stop(error)

    async def close(self) -> None:
        """End all texts, and close the connections."""
        self._closing = True
        self._stop(Unavailable("the server is shutting down; try another server", code="draining", retry_after=1))
        await self.upstream.end()

    async def _write(self, turn: UpstreamTurn, job: UpstreamJob) -> AsyncGenerator[TextDelta]:
        """Ask for a text, and again where that makes sense and the caller has the time."""
        tries = 0
        while True:
            await self._wait(turn, self._find_pause())
            tries += 1
            began, begun = time.perf_counter(), False
            try:
                async with aclosing(self.upstream.stream(job)) as deltas:
                    while (delta := await self._until_ended(turn, anext(deltas, None))) is not None:
                        begun = True
                        turn.tokens += delta.tokens
                        if delta.finish:
                            self._lengths.note(turn)
                            self._count(turn.tokens, began)
                        yield delta
                return
            except UpstreamError as failed:
                self._count(turn.tokens, began, failed=1)
                pause = failed.error.retry_after if failed.outcome == "busy" else None
                if pause:
                    self._paused_until = max(self._paused_until, time.monotonic() + min(pause, LONGEST_PAUSE))
                wait = self._retries.wait(tries, failed.error, random.random()) if failed.again and not begun else None
                if wait is None or not self._has_time(wait):
                    raise failed.error from None
                await self._wait(turn, wait)

    def _find_pause(self) -> float:
        """Find the seconds until the upstream may be asked.

        Raises:
            Unavailable: the caller's deadline is earlier.
        """
        pause = self._paused_until - time.monotonic()
        if pause > 0 and not self._has_time(pause):
            message = f"the upstream of {self.name} has no capacity for {pause:.0f} s more; try again later"
            raise Unavailable(message, code="upstream_busy", retry_after=math.ceil(pause))
        return pause

    def _has_time(self, seconds: float) -> bool:
        left = find_seconds_left()
        return seconds <= LONGEST_PAUSE if left is None else seconds < left

    async def _wait(self, turn: UpstreamTurn, seconds: float) -> None:
        if seconds > 0:
            await self._until_ended(turn, asyncio.sleep(seconds))

    async def _until_ended(self, turn: UpstreamTurn, step: Awaitable[T]) -> T:
        """Wait for a step of a text, unless the lane ends first."""
        try:
            async with asyncio.timeout(None) as turn.wait:
                if self._end is not None:
                    turn.wait.reschedule(0)
                return await step
        except TimeoutError:
            if self._end is None:
                raise
            raise self._end.copy() from None
        finally:
            turn.wait = None

    def _stop(self, error: TureenError) -> None:
        self._end = self._end or error
        for turn in self._open:
            if turn.wait is not None:
                turn.wait.reschedule(0)

    def _list_waiting(self) -> list[UpstreamTurn]:
        return [turn for turn in self._open if not turn.started]

    def _count(self, tokens: int, began: float, failed: int = 0) -> None:
        ran = LaneRun(self.name, 1, max(tokens, 0), 0, failed, time.perf_counter() - began)
        if failed:
            self._observe(ran)
        else:
            self._note(ran, full=self.waiting > 0)
