"""The lane of a policy family whose runtime makes its own batches: it limits the jobs and measures their speed."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from tureen.errors import TureenError, Unavailable
from tureen_serve.inference.lane import Lane, LaneRun, Observer, ignore_run
from tureen_serve.inference.text_turns import TextLengths, TextTurn
from tureen_serve.runtimes.contract import GenerationJob, Generator, TextDelta
from tureen_serve.runtimes.grammars import GrammarBook

PERIOD = 0.25  # seconds


@dataclass(eq=False, slots=True)
class OpenJob(TextTurn):
    """A job that waits or runs. It has ``started`` once its first delta has come."""

    started: bool = False


class GeneratorLane(Lane):
    """The generator of one policy family and its jobs.

    Args:
        name: for errors and metrics.
        generator: makes its own batches.
        queue_jobs: the largest number of jobs that may wait for their first token.
        observe: called about every ``PERIOD`` while jobs run.
    """

    def __init__(self, name: str, generator: Generator, queue_jobs: int = 256, observe: Observer = ignore_run) -> None:
        super().__init__(name, generator, observe)
        self._generator = generator
        self._queue_jobs = queue_jobs
        self._open: dict[OpenJob, None] = {}
        self._since: float | None = None
        self._heard = 0.0
        self._made = self._failed = 0
        self._lengths = TextLengths()

    @property
    def grammars(self) -> GrammarBook:
        """The compiled grammars of the family."""
        return self._generator.grammars

    @property
    def waiting(self) -> int:
        """The number of jobs that have no token yet."""
        return len(self._open) - self.running

    @property
    def has_work(self) -> bool:
        """Whether texts wait or are written."""
        return bool(self.waiting or self.running)

    @property
    def running(self) -> int:
        """The number of jobs that have started."""
        return sum(opened.started for opened in self._open)

    @property
    def busy_seconds(self) -> float:
        """How long no running job has got a token; 0 if no job is open."""
        return time.perf_counter() - self._heard if self._open else 0.0

    async def stream(self, job: GenerationJob) -> AsyncGenerator[TextDelta]:
        """Yield the deltas of one text. Closing the iterator ends the job.

        Raises:
            Unprocessable: the job cannot run on this model.
            Unavailable: too many jobs wait, or they need longer than the caller's deadline; the server is shutting
                down, or the runtime is dead.
            ServerFault: the runtime failed on this job.
        """
        self._generator.check(job)
        self._check_open()
        if self.waiting >= self._queue_jobs:
            raise self._refuse(sum(opened.job.sampling.max_tokens for opened in self._open))
        self.speed.check_deadline(self.name, self._lengths.count_ahead(self._open))
        opened = OpenJob(job)
        if not self._open:
            self._heard = time.perf_counter()
        self._open[opened] = None
        self._since = self._since or time.perf_counter()
        try:
            async with aclosing(self._generator.stream(job)) as deltas:
                async for delta in deltas:
                    opened.started = True
                    opened.tokens += delta.tokens
                    if delta.finish:
                        self._lengths.note(opened)
                    self._heard = time.perf_counter()
                    self._made += delta.tokens
                    yield delta
                    self._measure()
        except TureenError:
            self._failed += 1
            raise
        finally:
            del self._open[opened]
            self._measure(at_once=not self._open)

    def abandon(self, error: Unavailable) -> None:
        """End all jobs with an error, and refuse what comes: the process ends."""
        self._died = self._died or error.message
        self._generator.abandon(error)

    async def close(self) -> None:
        """Stop the running jobs and free the weights."""
        self._closing = True
        self._generator.close()

    def _measure(self, at_once: bool = False) -> None:
        now = time.perf_counter()
        began = self._since or now
        if not at_once and now - began < PERIOD:
            return
        if self._made or self._failed:
            ran = LaneRun(self.name, max(self.running, 1), self._made, 0, self._failed, now - began)
            self._note(ran, full=self.waiting > 0)
        self._made = self._failed = 0
        self._since = now if self._open else None
