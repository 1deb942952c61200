"""The lane of a policy family whose runtime batches by itself: it bounds the jobs, and measures."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from tureen.errors import TureenError
from tureen_serve.inference.lane import Lane, LaneRun, Observer, ignore_run
from tureen_serve.runtimes.contract import GenerationJob, Generator, TextDelta

PERIOD = 0.25


@dataclass(eq=False, slots=True)
class OpenJob:
    """One open job."""

    job: GenerationJob
    speaks: bool = False


class GeneratorLane(Lane):
    """One policy family's generator and the jobs in it.

    Args:
        name: what errors and metrics call it.
        generator: batches by itself.
        queue_jobs: how many jobs may wait for their first token.
        observe: told about every quarter of a second of work.
    """

    def __init__(self, name: str, generator: Generator, queue_jobs: int = 256, observe: Observer = ignore_run) -> None:
        super().__init__(name, generator, observe)
        self._generator = generator
        self._queue_jobs = queue_jobs
        self._open: dict[OpenJob, None] = {}
        self._since: float | None = None
        self._made = self._failed = 0

    @property
    def waiting(self) -> int:
        """Jobs without a token yet."""
        return len(self._open) - self.running

    @property
    def running(self) -> int:
        """Jobs that are being written."""
        return sum(place.speaks for place in self._open)

    async def stream(self, job: GenerationJob) -> AsyncGenerator[TextDelta]:
        """Deltas of one text; closing the iterator frees its place.

        Raises:
            Unprocessable: the job cannot run on this model.
            Unavailable: too many wait, the server is shutting down, or the runtime is dead.
            ServerFault: the runtime failed on it.
        """
        self._generator.check(job)
        self._check_open()
        if self.waiting >= self._queue_jobs:
            raise self._refuse(sum(place.job.sampling.max_tokens for place in self._open))
        place = OpenJob(job)
        self._open[place] = None
        self._since = self._since or time.perf_counter()
        try:
            async with aclosing(self._generator.stream(job)) as deltas:
                async for delta in deltas:
                    place.speaks = True
                    self._made += delta.tokens
                    yield delta
                    self._measure()
        except TureenError:
            self._failed += 1
            raise
        finally:
            del self._open[place]
            self._measure(at_once=not self._open)

    async def close(self) -> None:
        """End what is running and free the weights."""
        self._closing = True
        self._generator.close()

    def _measure(self, at_once: bool = False) -> None:
        now = time.perf_counter()
        began = self._since or now
        if not at_once and now - began < PERIOD:
            return
        if self._made or self._failed:
            self._note(LaneRun(self.name, max(self.running, 1), self._made, 0, self._failed, now - began))
        self._made = self._failed = 0
        self._since = now if self._open else None
