"""The lane of a policy family whose runtime runs one step at a time: returns each caller the deltas of its job."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import partial

from tureen.errors import ServerFault, TureenError, Unavailable
from tureen_serve.inference.lane import LaneRun, Observer, WorkerLane, ignore_run
from tureen_serve.inference.text_turns import TextLengths, TextTurn
from tureen_serve.runtimes.contract import GenerationJob, Stepper, TextDelta
from tureen_serve.runtimes.grammars import GrammarBook

LOG = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Ticket(TextTurn):
    """A job in a stepper lane, and the queue of its deltas."""

    job: GenerationJob
    deltas: asyncio.Queue[TextDelta | TureenError] = field(default_factory=asyncio.Queue)


class StepperLane(WorkerLane):
    """The stepper of one policy family and its jobs.

    Args:
        name: for errors and metrics.
        queue_jobs: the largest number of jobs that may wait.
        observe: called after every step.
    """

    def __init__(self, name: str, stepper: Stepper, queue_jobs: int = 256, observe: Observer = ignore_run) -> None:
        self._stepper = stepper
        self._queue_jobs = queue_jobs
        self._open: dict[Ticket, None] = {}
        self._arrived: list[Ticket] = []
        self._left: list[Ticket] = []
        self._lengths = TextLengths()
        super().__init__(name, stepper, observe)  # starts the worker

    @property
    def grammars(self) -> GrammarBook:
        """The compiled grammars of the family."""
        return self._stepper.grammars

    @property
    def waiting(self) -> int:
        """The number of jobs that wait."""
        return len(self._arrived) + self._stepper.waiting

    @property
    def has_work(self) -> bool:
        """Whether texts wait or are written."""
        return bool(self.waiting or self.running)

    @property
    def running(self) -> int:
        """The number of jobs in the batch."""
        return self._stepper.running

    async def stream(self, job: GenerationJob) -> AsyncGenerator[TextDelta]:
        """Yield the deltas of one text. Closing the iterator ends the job.

        Raises:
            Unprocessable: the job cannot run on this model.
            Unavailable: too many jobs wait, or they need longer than the caller's deadline; the server is shutting
                down, or the runtime is dead.
            ServerFault: the runtime failed on this job.
        """
        self._stepper.check(job)
        ticket = Ticket(job)
        self._enter(ticket)
        try:
            while True:
                delta = await ticket.deltas.get()
                if isinstance(delta, TureenError):
                    raise delta
                ticket.tokens += delta.tokens
                if delta.finish:
                    self._lengths.note(ticket)
                yield delta
                if delta.finish:
                    return
        finally:
            self._leave(ticket)

    async def close(self) -> None:
        """Stop the running jobs and free the weights."""
        await self._stop()
        self._stepper.close()

    def _enter(self, ticket: Ticket) -> None:
        with self._state:
            self._loop = self._check_open()
            if self.waiting >= self._queue_jobs:
                raise self._refuse(sum(each.job.sampling.max_tokens for each in self._open))
            self.speed.check_deadline(self.name, self._lengths.count_ahead(self._open))
            self._open[ticket] = None
            self._arrived.append(ticket)
            self._state.notify_all()

    def _leave(self, ticket: Ticket) -> None:
        with self._state:
            if ticket in self._open:
                del self._open[ticket]
                self._left.append(ticket)
                self._state.notify_all()

    def _work(self) -> None:
        while self._take():
            began = time.perf_counter()
            results = self._step()
            seconds = time.perf_counter() - began
            failed = sum(isinstance(each, TureenError) for _, each in results)
            if results:
                ran = LaneRun(self.name, len(results), len(results) - failed, 0, failed, seconds)
                self._note(ran, full=self._stepper.waiting > 0)
                self._on_loop(partial(_hand_out, results))
        with self._state:
            self._abandon(Unavailable("the server is shutting down; try another server", code="draining"))

    def _take(self) -> bool:
        """Add new jobs to the stepper and drop those that ended. Returns False when the lane closes."""
        with self._state:
            self._state.wait_for(lambda: self._arrived or self._left or self._stepper.active or self._closing)
            arrived, left, self._arrived, self._left = self._arrived, self._left, [], []
            for ticket in arrived:
                self._stepper.add(ticket, ticket.job)
            for ticket in left:
                self._stepper.drop(ticket)
            return not self._closing

    def _step(self) -> Sequence[tuple[Ticket, TextDelta | TureenError]]:
        try:
            with self._timed_pass():
                return self._stepper.step()
        except Unavailable:  # the runtime itself is dead
            raise
        except Exception as error:
            LOG.exception("%s failed in a step", self.name)
            fault = ServerFault(f"{self.name} failed ({type(error).__name__})", code="runtime_failed")
        with self._state:
            failed = [ticket for ticket in self._open if ticket not in self._arrived]
        for ticket in failed:
            self._stepper.drop(ticket)
        return [(ticket, fault) for ticket in failed]

    def _abandon(self, error: TureenError) -> None:
        tickets, self._open = list(self._open), {}
        self._on_loop(partial(_hand_out, [(ticket, error) for ticket in tickets]))


def _hand_out(results: Sequence[tuple[Ticket, TextDelta | TureenError]]) -> None:
    for ticket, result in results:
        ticket.deltas.put_nowait(result)
