"""The lane of a runtime that batches by itself: who is let in, who is counted, and what is told of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import pytest

from tureen.errors import ServerFault, TureenError, Unavailable, Unprocessable
from tureen_core.soup import Semantics
from tureen_serve.inference import generator_lane
from tureen_serve.inference.demand import DEADLINE
from tureen_serve.inference.generator_lane import GeneratorLane
from tureen_serve.inference.lane import RESTARTING, LaneRun
from tureen_serve.inference.lane_deaths import find_death
from tureen_serve.runtimes.contract import GenerationJob, TextDelta, Weights
from tureen_serve.runtimes.grammars import GrammarBook
from tureen_serve.runtimes.jobs import check_job
from tureen_serve.runtimes.sampling_fields import Sampling

pytestmark = pytest.mark.anyio

HELLO, WORLD, END = TextDelta("hello", 2), TextDelta(" world", 3), TextDelta("!", 1, finish="stop")
DOWN = "reciter: the engine has died and is starting again"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Reciter:
    """A generator that writes what a test dictates, to each job its own.

    Attributes:
        open: the jobs that it is asked to write.
    """

    context = 100
    description = "recites"
    grammars = GrammarBook(None, 0, [])

    def __init__(self) -> None:
        self.failure: str | None = None
        self.dead = False
        self.memory_failures = 0
        self.open: list[GenerationJob] = []
        self.closed = False
        self._dictated: dict[GenerationJob, asyncio.Queue[TextDelta | Exception]] = {}

    def dictate(self, job: GenerationJob, *said: TextDelta | Exception) -> None:
        for each in said:
            self._inbox(job).put_nowait(each)

    def check(self, job: GenerationJob) -> None:
        check_job(job, self.context, 300)

    async def stream(self, job: GenerationJob) -> AsyncGenerator[TextDelta]:
        inbox = self._inbox(job)
        self.open.append(job)
        try:
            while True:
                said = await inbox.get()
                if isinstance(said, Exception):
                    raise said
                yield said
                if said.finish:
                    return
        finally:
            self.open.remove(job)

    def likelihood(
        self, ids: Sequence[int], start: int, weights: Weights, semantics: Semantics = "delta"
    ) -> list[float]:
        raise AssertionError("no lane asks for it")

    def close(self) -> None:
        self.closed = True
        self.abandon(Unavailable("the server is shutting down", code="draining"))

    def abandon(self, error: TureenError) -> None:
        for job in self.open:
            self.dictate(job, error)

    def _inbox(self, job: GenerationJob) -> "asyncio.Queue[TextDelta | Exception]":
        return self._dictated.setdefault(job, asyncio.Queue())


class Clock:
    """Stands in for ``time`` in the lane."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(generator_lane, "time", found)
    return found


@pytest.fixture
def reciter() -> Reciter:
    return Reciter()


@asynccontextmanager
async def lane(reciter: Reciter, **options: Any) -> AsyncIterator[GeneratorLane]:
    found = GeneratorLane("words", reciter, **options)
    try:
        yield found
    finally:
        await found.close()


def job(number: int = 0, max_tokens: int = 8) -> GenerationJob:
    return GenerationJob((5, 6, 7 + number), Sampling(max_tokens=max_tokens), (("academy", 1.0),))


async def collect(one: GeneratorLane, asked: GenerationJob) -> list[TextDelta]:
    return [delta async for delta in one.stream(asked)]


async def entered(one: GeneratorLane, asked: GenerationJob) -> "asyncio.Task[list[TextDelta]]":
    """A reader of a job, which the lane has taken in."""
    reader = asyncio.create_task(collect(one, asked))
    await settled()
    return reader


async def settled() -> None:
    """Let all tasks go as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def refused(one: GeneratorLane, asked: GenerationJob) -> Unavailable:
    """The lane's answer to a job too many; one that it takes in instead would wait for its first token."""
    with pytest.raises(Unavailable) as caught:
        async with asyncio.timeout(5):
            await collect(one, asked)
    return caught.value


# --------------------------------------------------------------------------- streams and places


async def test_deltas_come_as_they_are_written(reciter: Reciter) -> None:
    async with lane(reciter) as one:
        stream = one.stream(job())
        reciter.dictate(job(), HELLO)
        assert await anext(stream) is HELLO
        reciter.dictate(job(), WORLD, END)
        assert [delta async for delta in stream] == [WORLD, END]


async def test_streams_side_by_side_each_get_their_own(reciter: Reciter) -> None:
    async with lane(reciter) as one:
        readers = [await entered(one, job(number)) for number in range(5)]
        for piece in range(3):
            for number in range(5):
                reciter.dictate(job(number), TextDelta(f"{number}.{piece}", 1, finish="length" if piece == 2 else None))
            await settled()
        found = await asyncio.gather(*readers)
    assert [[delta.text for delta in deltas] for deltas in found] == [[f"{n}.{p}" for p in range(3)] for n in range(5)]


async def test_a_job_waits_until_its_first_token_and_runs_until_its_last(reciter: Reciter) -> None:
    async with lane(reciter) as one:
        assert (one.waiting, one.running) == (0, 0)
        readers = [await entered(one, job(number)) for number in range(3)]
        assert (one.waiting, one.running) == (3, 0)
        reciter.dictate(job(1), HELLO)
        await settled()
        assert (one.waiting, one.running) == (2, 1)
        reciter.dictate(job(0), HELLO)
        reciter.dictate(job(1), END)
        await settled()
        assert (one.waiting, one.running) == (1, 1)
        reciter.dictate(job(0), END)
        reciter.dictate(job(2), END)
        await asyncio.gather(*readers)
        assert (one.waiting, one.running) == (0, 0)


async def test_equal_jobs_have_a_place_each(reciter: Reciter) -> None:
    async with lane(reciter) as one:
        readers = [await entered(one, job()) for _ in range(2)]
        assert one.waiting == 2
        reciter.dictate(job(), END, END)
        assert await asyncio.gather(*readers) == [[END], [END]]


async def test_a_job_that_is_not_read_yet_has_no_place(reciter: Reciter) -> None:
    async with lane(reciter) as one:
        stream = one.stream(job())
        assert (one.waiting, reciter.open) == (0, [])
        await stream.aclose()


async def test_closing_a_stream_frees_its_place(reciter: Reciter) -> None:
    async with lane(reciter) as one:
        reciter.dictate(job(), HELLO)
        async with aclosing(one.stream(job())) as stream:
            await anext(stream)
            assert (one.running, reciter.open) == (1, [job()])
        assert (one.waiting, one.running, reciter.open) == (0, 0, [])


@pytest.mark.parametrize("said", [[], [HELLO]], ids=["waiting", "running"])
async def test_a_cancelled_reader_frees_its_place(said: list[TextDelta], reciter: Reciter) -> None:
    async with lane(reciter) as one:
        reader = await entered(one, job())
        reciter.dictate(job(), *said)
        await settled()
        assert (one.waiting, one.running) == (1 - len(said), len(said))
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert reader.cancelled()
        assert (one.waiting, one.running, reciter.open) == (0, 0, [])


# --------------------------------------------------------------------------- who is refused


async def test_too_many_without_a_token_are_refused_until_one_speaks(reciter: Reciter) -> None:
    async with lane(reciter, queue_jobs=2) as one:
        readers = [await entered(one, job(number)) for number in range(2)]
        error = await refused(one, job(2))
        assert (error.code, error.retry_after) == ("queue_full", 1)
        assert "the queue of words is full" in error.message
        assert reciter.open == [job(0), job(1)]
        reciter.dictate(job(0), HELLO)
        await settled()
        readers.append(await entered(one, job(2)))
        assert (one.waiting, one.running) == (2, 1)
        assert (await refused(one, job(3))).code == "queue_full"
        for number in range(3):
            reciter.dictate(job(number), END)
        assert [deltas[-1] for deltas in await asyncio.gather(*readers)] == [END] * 3


@pytest.mark.parametrize(("speed", "seconds"), [(0.0, 1), (4.0, 9), (1e9, 1), (0.001, 60)])
async def test_retry_after_is_what_all_open_jobs_may_need(speed: float, seconds: int, reciter: Reciter) -> None:
    async with lane(reciter, queue_jobs=1) as one:
        readers = [await entered(one, job(0, max_tokens=23))]
        reciter.dictate(job(0, max_tokens=23), TextDelta(""))
        await settled()
        readers.append(await entered(one, job(1, max_tokens=10)))
        one.speed.recent = speed
        assert (await refused(one, job(2, max_tokens=90))).retry_after == seconds
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


@contextmanager
def due(seconds: float) -> Iterator[None]:
    """Requests begin that may take so many seconds."""
    token = DEADLINE.set(asyncio.timeout_at(asyncio.get_running_loop().time() + seconds))
    try:
        yield
    finally:
        DEADLINE.reset(token)


async def test_a_text_that_its_queue_cannot_begin_in_time_is_refused_at_once(reciter: Reciter) -> None:
    async with lane(reciter) as one:
        one.speed.expect(10.0)
        with due(4):
            readers = [await entered(one, job(number, max_tokens=30)) for number in range(3)]
        with due(8):
            error = await refused(one, job(4))
        assert error.code == "queue_full"
        assert error.retry_after in (2, 3)
        assert error.message.startswith("the queue of words needs about 10 s, and this request may take 8 s more;")
        with due(11):
            readers.append(await entered(one, job(5)))
        reciter.dictate(job(0, max_tokens=30), HELLO)
        await settled()
        with due(10):
            readers.append(await entered(one, job(6)))
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def test_texts_are_as_long_as_those_before_them(reciter: Reciter) -> None:
    async with lane(reciter) as one:
        reader = await entered(one, job(0, max_tokens=90))
        reciter.dictate(job(0, max_tokens=90), HELLO, END)
        await reader
        one.speed.expect(1.0)
        with due(600):
            readers = [await entered(one, job(number, max_tokens=90)) for number in range(1, 4)]
        with due(8):
            assert (await refused(one, job(4))).message.startswith("the queue of words needs about 10 s")
        for each in readers:
            each.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


@pytest.mark.parametrize("state", ["open", "full", "down", "draining"])
async def test_a_job_that_cannot_run_is_told_so_before_all_else(state: str, reciter: Reciter) -> None:
    one = GeneratorLane("words", reciter, queue_jobs=0 if state == "full" else 9)
    reciter.failure = DOWN if state == "down" else None
    if state == "draining":
        await one.close()
    with pytest.raises(Unprocessable, match="maximum context length is .* lower max_tokens") as caught:
        await collect(one, job(max_tokens=4000))
    assert caught.value.code == "context_length_exceeded"
    assert (one.waiting, reciter.open) == (0, [])


async def test_a_runtime_that_is_down_is_asked_again_later(reciter: Reciter) -> None:
    async with lane(reciter) as one:
        assert one.failure is None
        reciter.failure = DOWN
        assert one.failure == DOWN
        error = await refused(one, job())
        assert (error.code, error.retry_after, error.message) == ("engine_dead", RESTARTING, DOWN)
        assert (one.waiting, reciter.open) == (0, [])
        reciter.failure = None
        assert one.failure is None
        reciter.dictate(job(), HELLO, END)
        assert await collect(one, job()) == [HELLO, END]


async def test_texts_that_get_no_token_are_stuck_and_can_be_abandoned(reciter: Reciter, clock: Clock) -> None:
    async with lane(reciter) as one:
        assert one.busy_seconds == 0
        reader = await entered(one, job(1))
        clock.now += 5
        assert one.busy_seconds == 5
        reciter.dictate(job(1), HELLO)
        await settled()
        assert one.busy_seconds == 0
        clock.now += 7
        assert (find_death([one], 7), one.busy_seconds) == (None, 7)
        assert "words is stuck" in (find_death([one], 6) or "")
        one.abandon(Unavailable("it is stuck", code="engine_dead"))
        with pytest.raises(Unavailable, match="it is stuck"):
            await reader
        assert (await refused(one, job(2))).code == "engine_dead"


async def test_a_closed_lane_is_draining(reciter: Reciter) -> None:
    one = GeneratorLane("words", reciter)
    reader = await entered(one, job())
    reciter.dictate(job(), HELLO)
    await settled()
    await one.close()
    assert reciter.closed
    error = await refused(one, job(1))
    assert (error.code, error.retry_after) == ("draining", 1)
    with pytest.raises(Unavailable) as caught:
        await reader
    assert caught.value.code == "draining"
    assert (one.waiting, one.running) == (0, 0)


# --------------------------------------------------------------------------- what goes wrong, what is told


@pytest.mark.parametrize("said", [[], [HELLO]], ids=["waiting", "running"])
@pytest.mark.parametrize(
    "error",
    [ServerFault("failed on this text", code="runtime_failed"), Unavailable("has died", code="engine_dead")],
    ids=lambda error: error.code,
)
async def test_an_error_is_passed_on_to_its_own_reader_and_counted(
    error: TureenError, said: list[TextDelta], reciter: Reciter
) -> None:
    told: list[LaneRun] = []
    async with lane(reciter, observe=told.append) as one:
        struck, spared = await entered(one, job(0)), await entered(one, job(1))
        reciter.dictate(job(0), *said, error)
        with pytest.raises(type(error)) as caught:
            await struck
        assert caught.value is error
        assert (one.waiting, one.running, reciter.open) == (1, 0, [job(1)])
        reciter.dictate(job(1), HELLO, END)
        assert await spared == [HELLO, END]
        assert one.failure is None
    assert sum(ran.failed for ran in told) == 1
    assert sum(ran.tokens for ran in told) == 3 + 2 * len(said)


async def test_an_error_of_another_kind_leaves_no_place_behind(reciter: Reciter) -> None:
    async with lane(reciter) as one:
        reciter.dictate(job(), HELLO, ZeroDivisionError("bug"))
        with pytest.raises(ZeroDivisionError):
            await collect(one, job())
        assert (one.waiting, one.running, reciter.open) == (0, 0, [])


async def test_a_text_that_is_soon_done_is_told_at_its_end(reciter: Reciter, clock: Clock) -> None:
    told: list[LaneRun] = []
    async with lane(reciter, observe=told.append) as one:
        reader = await entered(one, job())
        clock.now += 0.125
        reciter.dictate(job(), HELLO, END)
        await reader
        assert one.speed.recent == 24.0
    assert told == [LaneRun("words", rows=1, tokens=3, cached=0, failed=0, seconds=0.125)]


async def test_a_long_text_is_told_every_period_and_the_rest_at_its_end(reciter: Reciter, clock: Clock) -> None:
    told: list[LaneRun] = []
    async with lane(reciter, observe=told.append) as one:
        reader = await entered(one, job())
        for _ in range(5):
            clock.now += 0.125
            reciter.dictate(job(), HELLO)
            await settled()
        assert [(ran.tokens, ran.seconds) for ran in told] == [(4, 0.25), (4, 0.25)]
        clock.now += 0.0625
        reciter.dictate(job(), END)
        await reader
    assert [(ran.tokens, ran.seconds) for ran in told[2:]] == [(3, 0.1875)]


async def test_streams_are_measured_together(reciter: Reciter, clock: Clock) -> None:
    told: list[LaneRun] = []
    async with lane(reciter, observe=told.append) as one:
        readers = []
        for number in range(3):
            readers.append(await entered(one, job(number)))
            clock.now += 0.0625
            reciter.dictate(job(number), HELLO)
        await settled()
        clock.now += 0.3125
        reciter.dictate(job(0), WORLD)
        await settled()
        assert told == [LaneRun("words", rows=3, tokens=9, cached=0, failed=0, seconds=0.5)]
        clock.now += 0.125
        for number in range(3):
            reciter.dictate(job(number), END)
        await asyncio.gather(*readers)
    assert [(ran.tokens, ran.seconds) for ran in told[1:]] == [(3, 0.125)]


async def test_time_in_which_nobody_asks_is_not_measured(reciter: Reciter, clock: Clock) -> None:
    told: list[LaneRun] = []
    async with lane(reciter, observe=told.append) as one:
        for number in range(2):
            reader = await entered(one, job(number))
            clock.now += 1.0
            reciter.dictate(job(number), END)
            await reader
            clock.now += 3600.0
        assert one.speed.recent == 1.0
    assert [(ran.tokens, ran.seconds) for ran in told] == [(1, 1.0), (1, 1.0)]


async def test_a_reader_who_leaves_midway_has_his_tokens_told(reciter: Reciter, clock: Clock) -> None:
    told: list[LaneRun] = []
    async with lane(reciter, observe=told.append) as one:
        reciter.dictate(job(), HELLO, WORLD, END)
        async with aclosing(one.stream(job())) as stream:
            await anext(stream)
            await anext(stream)
            clock.now += 0.125
    assert [(ran.tokens, ran.failed) for ran in told] == [(5, 0)]


async def test_where_nothing_was_made_nothing_is_told(reciter: Reciter, clock: Clock) -> None:
    told: list[LaneRun] = []
    async with lane(reciter, observe=told.append) as one:
        reader = await entered(one, job())
        clock.now += 10.0
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert one.speed.recent == 0.0
    assert told == []
