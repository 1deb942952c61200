"""Send the requests of a bench: at their times, or so many at a time."""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2

from tureen.bench.pools import Pools
from tureen.bench.trial import TIMED_OUT, Load, Trial
from tureen.bench.workloads import Workload
from tureen.http_replies import read_retry_after

MOST_IN_FLIGHT = 4096  # requests of an open loop; one that comes then waits here, which its latency shows


@dataclass(frozen=True)
class Bounds:
    """What ends a load.

    Attributes:
        seconds: no request is sent later.
        requests: the most requests.
        timeout: the seconds for one request, from when it was due.
    """

    seconds: float
    requests: int
    timeout: float


class LoadRun:
    """Sends the requests of a workload, and keeps what became of them.

    Args:
        first: the number of the first request in the workload.

    Attributes:
        trials: every request, in the order in which they ended.
    """

    def __init__(self, server: Pools, workload: Workload, bounds: Bounds, first: int = 1) -> None:
        self._server = server
        self._workload = workload
        self._bounds = bounds
        self._numbers = iter(range(first, first + bounds.requests))
        self._begin = 0.0
        self._room = asyncio.Semaphore(MOST_IN_FLIGHT)
        self.trials: list[Trial] = []

    async def run(self, load: Load, seed: int) -> None:
        """Send all requests, and wait until the last has been answered or has timed out."""
        self._begin = time.monotonic()
        if load.rate is not None:
            await self._send_by_clock(draw_arrivals(load.rate, self._bounds, random.Random(seed)))
        else:
            await asyncio.gather(*(self._send_in_turn() for _ in range(load.concurrency or 1)))

    async def _send_by_clock(self, arrivals: Iterator[float]) -> None:
        async with asyncio.TaskGroup() as group:
            for due in arrivals:
                await asyncio.sleep(max(due - self._now(), 0))
                group.create_task(self._send(next(self._numbers), due))

    async def _send_in_turn(self) -> None:
        for number in self._numbers:
            if (now := self._now()) >= self._bounds.seconds:
                return
            await self._send(number, now)

    async def _send(self, number: int, due: float) -> None:
        body = self._workload.build_body(number)
        sent, status, error, told_when = None, None, None, False
        try:
            async with asyncio.timeout(due + self._bounds.timeout - self._now()), self._room:
                sent = self._now()
                reply = await self._server.post(self._workload.path, body)
                status, told_when = reply.status_code, read_retry_after(reply) is not None
        except TimeoutError:
            error = TIMED_OUT
        except httpx2.RequestError as failure:
            error = type(failure).__name__
        ended = self._now()
        self.trials.append(Trial(due, ended if sent is None else sent, ended, status, error, told_when))

    def _now(self) -> float:
        return time.monotonic() - self._begin


def draw_arrivals(rate: float, bounds: Bounds, draw: random.Random) -> Iterator[float]:
    """Yield the times of a Poisson process of ``rate`` a second, in seconds, until the bounds are reached."""
    due = 0.0
    for _ in range(bounds.requests):
        due += draw.expovariate(rate)
        if due >= bounds.seconds:
            return
        yield due


def run_load(
    base_url: str | None, workload: Workload, load: Load, bounds: Bounds, seed: int, first: int = 1
) -> list[Trial]:
    """Put a load on a server, and return every request, in the order in which they ended.

    Request 0 is sent before and does not count: it opens a connection, and a wrong name is an error and not a figure.

    Args:
        seed: draws the times of an open loop.
        first: the number of the first request that counts.

    Raises:
        TureenError: the server cannot be reached, or refuses request 0 for good.
    """

    async def run() -> list[Trial]:
        async with Pools(base_url, bounds.timeout) as server:
            await server.try_request(workload.path, workload.build_body(0))
            found = LoadRun(server, workload, bounds, first)
            await found.run(load, seed)
            return found.trials

    return asyncio.run(run())
