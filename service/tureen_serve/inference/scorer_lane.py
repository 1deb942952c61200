"""The lane of one backbone: makes batches of the rows of many callers, and returns each caller's rewards."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from tureen.errors import ServerFault, TureenError, Unavailable
from tureen_serve.inference.batcher import Batcher, Priority
from tureen_serve.inference.demand import TENANT, find_seconds_left
from tureen_serve.inference.lane import LaneRun, Observer, WorkerLane, ignore_run
from tureen_serve.inference.row_deadlines import RowDeadlines
from tureen_serve.inference.score_cache import ScoreCache
from tureen_serve.runtimes.contract import Rewards, Row, Scorer
from tureen_serve.runtimes.halving import run_halved
from tureen_serve.trace_marks import TRACE_MARK, TraceMark

LOG = logging.getLogger(__name__)

Result = Rewards | TureenError
Future = asyncio.Future[Rewards]


@dataclass(frozen=True)
class NextBatch:
    """Rows that run together. ``fresh``: all belong to jobs. ``full``: requests must wait for them."""

    rows: Sequence[Row]
    fresh: bool
    full: bool


class ScorerLane(WorkerLane):
    """One scorer and its queue of rows.

    Args:
        name: for errors and metrics.
        queue_tokens: the largest number of tokens that may wait with the same or a higher priority than a new call. So
            jobs never keep requests out. A call that finds no such tokens is accepted, however large it is.
        observe: called after every batch.
        kept: how many scores are cached for repeated requests. Rows of priority ``batch`` neither use the cache nor
            fill it, and run ``fresh``. So the numbers of a job do not depend on other requests.
    """

    def __init__(
        self, name: str, scorer: Scorer, queue_tokens: int, observe: Observer = ignore_run, kept: int = 0
    ) -> None:
        self._scorer = scorer
        self._cache = ScoreCache(kept)
        self._keep: set[Row] = set()
        self._queue_tokens = queue_tokens
        self._batcher = Batcher()
        self._waiters: dict[Row, list[Future]] = {}
        self._deadlines = RowDeadlines()
        self._running: set[Row] = set()
        self._full = False  # whether the last batch left others waiting
        self._marks: dict[Row, list[TraceMark]] = {}  # of the traced requests that wait for a row
        super().__init__(name, scorer, observe, scorer.threads)  # starts the workers

    @property
    def queued_rows(self) -> int:
        """The number of rows that wait."""
        return len(self._batcher)

    @property
    def queued_tokens(self) -> int:
        """The number of tokens that wait."""
        return self._batcher.tokens()

    @property
    def cache_hits(self) -> int:
        """The number of rows that were answered from the cache."""
        return self._cache.hits

    @property
    def cache_lookups(self) -> int:
        """The number of rows that were looked up in the cache; those of jobs are not."""
        return self._cache.lookups

    @property
    def running(self) -> int:
        """The number of rows in the batches that run."""
        return len(self._running)

    @property
    def has_work(self) -> bool:
        """Whether rows wait or run."""
        return bool(len(self._batcher) or self._running)

    def submit(self, rows: Sequence[Row], priority: Priority = "default") -> list[Future]:
        """Queue all rows, or none. Equal rows that wait or run are computed once.

        Cancelling a future takes its row out of the queue, unless another caller waits for the row. A future fails with
        ``ServerFault`` if the runtime failed on its row or returned a reward that is not finite.

        Raises:
            Unavailable: the queue is full or too long for the caller's deadline, the server is shutting down, or the
                runtime is dead.
        """
        with self._state:
            self._loop = self._check_open()
            known = {} if priority == "batch" else {row: found for row in set(rows) if (found := self._cache.get(row))}
            tokens = sum(len(row.ids) for row in set(rows) if row not in self._waiters and row not in known)
            ahead, left = self._batcher.tokens(priority), find_seconds_left() or math.inf
            if ahead and ahead + tokens > self._queue_tokens:
                raise self._refuse(ahead)
            if tokens and ahead:
                whole = self.speed.expect_pass(left)
                self.speed.check_deadline(self.name, ahead + tokens, whole + max(whole - self.busy_seconds, 0))
            ends = time.monotonic() + left
            futures = [self._known(known[row]) if row in known else self._enter(row, priority, ends) for row in rows]
            self._state.notify_all()
        return futures

    async def close(self) -> None:
        """Refuse new rows, finish the waiting rows, and free the weights."""
        await self._stop()
        self._scorer.close()

    def _known(self, rewards: Rewards) -> Future:
        future: Future = asyncio.get_running_loop().create_future()
        future.set_result(rewards)
        return future

    def _enter(self, row: Row, priority: Priority, ends: float) -> Future:
        future: Future = asyncio.get_running_loop().create_future()
        future.add_done_callback(partial(self._gone, row))
        self._waiters.setdefault(row, []).append(future)
        if (mark := TRACE_MARK.get()) is not None:
            self._marks.setdefault(row, []).append(mark)
        if priority != "batch":
            self._keep.add(row)
        if row not in self._running:
            self._batcher.add(row, priority, TENANT.get())
            self._deadlines.add(row, ends)
        return future

    def _gone(self, row: Row, future: Future) -> None:
        if not future.cancelled():
            return
        with self._state:
            waiters = self._waiters.get(row, [])
            if future in waiters:
                waiters.remove(future)
            if not waiters:
                self._forget(row)

    def _forget(self, row: Row) -> list[Future]:
        """Take a row out of the queue, and return who waits for it. Needs the lock."""
        self._marks.pop(row, None)
        self._keep.discard(row)
        self._batcher.drop(row)
        self._deadlines.drop(row)
        return self._waiters.pop(row, [])

    def _work(self) -> None:
        while (batch := self._next()).rows:
            began = time.perf_counter()
            outcomes = self._run(batch.rows, batch.fresh)
            self._settle(batch, outcomes, time.perf_counter() - began)

    def _next(self) -> NextBatch:
        """Wait for the next batch. It is empty if the lane closes."""
        with self._state:
            self._state.wait_for(lambda: self._shed() or self._closing)
            limits, left = self._scorer.limits, self._deadlines.find_latest() - time.monotonic()
            most = self.speed.limit_tokens(limits.batch_tokens, left, self._streams)
            rows = self._batcher.next_batch(replace(limits, batch_tokens=most))
            for row in rows:
                self._deadlines.drop(row)
            self._full = self._batcher.tokens("default") > 0
            self._running.update(rows)
            return NextBatch(rows, self._keep.isdisjoint(rows), self._full)

    def _shed(self) -> int:
        """Refuse the rows that this batch would answer too late, if others wait for their places; count the rest."""
        now = time.monotonic()
        whole = self.speed.expect_pass(self._deadlines.find_latest() - now)
        late = self._deadlines.take_late(now + whole) if self._full else []
        if late:
            error = self._refuse(self._batcher.tokens("default"))
            self._on_loop(partial(_resolve, [(self._forget(row), error) for row in late]))
        return len(self._batcher)

    def _run(self, rows: Sequence[Row], fresh: bool) -> list[Result]:
        """Run a batch and return the results in order. A batch that fails is halved until the bad row is alone."""
        results: list[Result] = []
        for _, found in run_halved(rows, partial(self._attempt, fresh=fresh), _is_dead):
            results += [self._blame(found)] if isinstance(found, Exception) else found
        return results

    def _attempt(self, rows: Sequence[Row], fresh: bool) -> list[Result]:
        with self._timed_pass():
            found = self._scorer.run(rows, fresh)
        return [_finite(result) for _, result in zip(rows, found, strict=True)]

    def _blame(self, error: Exception) -> TureenError:
        """Make the error of a row that fails alone. It has no traceback, which would keep tensors."""
        if isinstance(error, TureenError):
            return error.copy(error.param)
        LOG.error("%s failed on one text", self.name, exc_info=error)
        return ServerFault(f"{self.name} failed on this text ({type(error).__name__})", code="runtime_failed")

    def _settle(self, batch: NextBatch, outcomes: Sequence[Result], seconds: float) -> None:
        rows = batch.rows
        done = [each for each in outcomes if isinstance(each, Rewards)]
        tokens, cached = sum(len(row.ids) for row in rows), sum(each.cached for each in done)
        with self._state:
            marks = dict.fromkeys(mark for row in rows for mark in self._marks.pop(row, ())) if self._marks else ()
        ran = LaneRun(self.name, len(rows), tokens, cached, len(rows) - len(done), seconds, tuple(marks))
        self._note(ran, batch.full)
        with self._state:
            self._running.difference_update(rows)
            for row, outcome in zip(rows, outcomes, strict=True):
                if row in self._keep and isinstance(outcome, Rewards):
                    self._cache.put(row, outcome)
            self._keep.difference_update(rows)
            waiters = [self._waiters.pop(row, []) for row in rows]
        self._on_loop(partial(_resolve, list(zip(waiters, outcomes, strict=True))))

    def _abandon(self, error: TureenError) -> None:
        waiters = list(self._waiters.values())
        self._waiters, self._batcher, self._running, self._keep = {}, Batcher(), set(), set()
        self._marks, self._deadlines = {}, RowDeadlines()
        self._on_loop(partial(_resolve, [(futures, error) for futures in waiters]))


def _is_dead(error: Exception) -> bool:
    """Whether the runtime itself is dead."""
    return isinstance(error, Unavailable)


def _finite(result: Result) -> Result:
    if isinstance(result, TureenError) or all(map(math.isfinite, result.values)):
        return result
    return ServerFault("the reward of this text is not a finite number", code="non_finite_score")


def _resolve(settled: Sequence[tuple[Sequence[Future], Result]]) -> None:
    for futures, outcome in settled:
        for future in futures:
            if future.done():
                continue
            if isinstance(outcome, TureenError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
