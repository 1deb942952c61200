"""The scorer's lane: who gets what, who is refused, and what happens when a row is poison or a caller has gone."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from waiting import wait_until

from tureen.errors import ServerFault, TureenError, Unavailable, Unprocessable
from tureen_serve.inference.demand import DEADLINE, TENANT, find_seconds_left
from tureen_serve.inference.lane import RESTARTING, LaneRun
from tureen_serve.inference.lane_deaths import find_death
from tureen_serve.inference.scorer_lane import ScorerLane
from tureen_serve.runtimes.contract import BatchLimits, Rewards, Row

pytestmark = pytest.mark.anyio

POISON, INFINITE, TOO_LONG, FATAL, REFUSED, PANIC = 90, 91, 92, 93, 94, 95
SMALL = BatchLimits(batch_tokens=64, batch_rows=8)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Adder:
    """A scorer whose reward is the sum of the ids. It waits at ``gate`` and keeps what it ran."""

    threads = 1
    failure: str | None = None
    dead = False
    memory_failures = 0
    description = "sums"

    def __init__(self, limits: BatchLimits = SMALL) -> None:
        self.limits = limits
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()
        self.batches: list[list[Row]] = []
        self.fresh: list[bool] = []
        self.thread_names: set[str] = set()
        self.closed = False

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        self.batches.append(list(rows))
        self.fresh.append(fresh)
        self.thread_names.add(threading.current_thread().name)
        self.started.set()
        assert self.gate.wait(20)
        for row in rows:
            if POISON in row.ids:
                raise ZeroDivisionError("poison")
            if TOO_LONG in row.ids and len(rows) == 1:
                raise Unprocessable("too long", code="input_exceeds_device_memory")
            if TOO_LONG in row.ids:
                raise MemoryError
            if FATAL in row.ids:
                raise Unavailable("the accelerator has failed", code="engine_dead")
            if PANIC in row.ids:
                raise GeneratorExit("a panic in Rust code")
        return [Rewards((math.inf if INFINITE in row.ids else float(sum(row.ids)),)) for row in rows]

    def close(self) -> None:
        self.closed = True


def row(*ids: int) -> Row:
    return Row(ids, (("helpful", 1.0),))


@asynccontextmanager
async def lane(
    scorer: Adder, queue_tokens: int = 1000, observe: Callable[[LaneRun], None] = lambda ran: None, kept: int = 0
) -> AsyncIterator[ScorerLane]:
    found = ScorerLane("tiny", scorer, queue_tokens, observe, kept)
    try:
        yield found
    finally:
        scorer.gate.set()
        await found.close()


async def held(scorer: Adder, one: ScorerLane) -> "asyncio.Future[Rewards]":
    """Submit a row and wait until the worker stands at the gate with it."""
    scorer.gate.clear()
    scorer.started.clear()
    (future,) = one.submit([row(1)])
    assert await asyncio.to_thread(scorer.started.wait, 20)
    return future


async def values(futures: Sequence["asyncio.Future[Rewards]"]) -> list[float]:
    return [rewards.values[0] for rewards in await asyncio.gather(*futures)]


async def test_rewards_come_back_in_order() -> None:
    scorer = Adder()
    async with lane(scorer) as one:
        assert await values(one.submit([row(index, 1) for index in range(50)])) == [index + 1 for index in range(50)]
    assert all(len(batch) <= 8 for batch in scorer.batches)
    assert scorer.thread_names == {"lane tiny"}


async def test_the_loop_goes_on_while_a_batch_runs() -> None:
    scorer = Adder()
    async with lane(scorer) as one:
        future = await held(scorer, one)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not future.done()
        assert one.running == 1
        scorer.gate.set()
        assert (await future).values == (1.0,)
        assert one.running == 0


async def test_equal_rows_in_flight_are_computed_once() -> None:
    scorer = Adder()
    async with lane(scorer) as one:
        running = await held(scorer, one)
        again = one.submit([row(1), row(2), row(2)])
        later = one.submit([row(2)], "interactive")
        assert one.queued_rows == 1
        scorer.gate.set()
        assert await values([running, *again, *later]) == [1, 1, 2, 2, 2]
    assert sum(map(len, scorer.batches)) == 2


async def test_a_full_queue_refuses_all_of_a_call_with_the_time_it_needs() -> None:
    scorer = Adder()
    async with lane(scorer, queue_tokens=10) as one:
        await held(scorer, one)
        waiting = one.submit([row(2, 2, 2, 2), row(3, 3, 3, 3)])
        one.speed.recent = 3.0
        with pytest.raises(Unavailable) as caught:
            one.submit([row(4), row(5, 5)])
        assert caught.value.code == "queue_full"
        assert caught.value.retry_after == 3
        assert (one.queued_rows, one.queued_tokens) == (2, 8)
        one.submit([row(4), row(5)])
        one.submit([row(2, 2, 2, 2)])
        scorer.gate.set()
        assert await values(waiting) == [8, 12]


@pytest.mark.parametrize(("speed", "seconds"), [(0.0, 1), (1e9, 1), (0.001, 60)])
async def test_retry_after_stays_between_a_second_and_a_minute(speed: float, seconds: int) -> None:
    scorer = Adder()
    async with lane(scorer, queue_tokens=1) as one:
        await held(scorer, one)
        one.submit([row(2)])
        one.speed.recent = speed
        with pytest.raises(Unavailable) as caught:
            one.submit([row(3)])
        assert caught.value.retry_after == seconds


async def test_a_call_that_its_queue_cannot_answer_in_time_is_refused_at_once() -> None:
    scorer = Adder()
    async with lane(scorer) as scores:
        scores._note(LaneRun("adder", 1, 10, 0, 0, 2.0))  # 5 tokens a second
        scorer.gate.clear()
        first = scores.submit([row(*[1] * 20)])
        await wait_until(lambda: scores.running == 1)
        second = scores.submit([row(*[2] * 50)])
        now = asyncio.get_running_loop().time()
        token = DEADLINE.set(asyncio.timeout_at(now + 4))
        with pytest.raises(Unavailable, match="needs about 12 s, and this request may take 4 s") as caught:
            scores.submit([row(3)])
        assert caught.value.code == "queue_full"
        assert caught.value.retry_after in (8, 9)
        again = scores.submit([row(*[2] * 50)])  # it waits already, so it does not come last
        DEADLINE.set(asyncio.timeout_at(now - 1))
        assert find_seconds_left() is None
        DEADLINE.set(asyncio.timeout_at(now + 100))
        third = scores.submit([row(3)])
        DEADLINE.reset(token)
        scorer.gate.set()
        assert [(await each[0]).values for each in (first, second, again, third)] == [
            (20.0,),
            (100.0,),
            (100.0,),
            (3.0,),
        ]


async def test_rows_that_would_be_answered_too_late_give_their_places_to_others() -> None:
    """A batch takes 100 s, so of what waits only rows with more time are run, though others came first."""
    scorer = Adder(BatchLimits(batch_tokens=64, batch_rows=2, padded=False))
    async with lane(scorer) as scores:
        scores.speed.pass_seconds = 100.0
        first = await held(scorer, scores)
        loop = asyncio.get_running_loop()
        clock = asyncio.timeout_at(loop.time() + 50)
        token = DEADLINE.set(clock)
        late = [scores.submit([row(number)])[0] for number in (2, 3, 4)]
        DEADLINE.set(asyncio.timeout_at(loop.time() + 500))
        timely = [scores.submit([row(number)])[0] for number in (5, 3, 6)]  # of the second, two callers wait
        DEADLINE.reset(token)
        patient = scores.submit([row(7)])
        scores._full = True  # the batch that runs has left others waiting
        scorer.gate.set()
        assert await values([first, *timely, *patient]) == [1, 5, 3, 6, 7]
        for future in (late[0], late[2]):
            with pytest.raises(Unavailable) as caught:
                await future
            assert (caught.value.code, caught.value.retry_after) == ("queue_full", 1)
        assert await values([late[1]]) == [3]
    assert [[each.ids[0] for each in batch] for batch in scorer.batches] == [[1], [3, 5], [6, 7]]


async def test_a_batch_is_as_small_as_its_deadlines_need() -> None:
    """A full batch takes 100 s, and nobody has more than 6: so 20 tokens are read at once, of 10 a second, not 64."""
    scorer = Adder(BatchLimits(batch_tokens=64, batch_rows=8, padded=False))
    async with lane(scorer) as scores:
        first = await held(scorer, scores)
        token = DEADLINE.set(asyncio.timeout_at(asyncio.get_running_loop().time() + 6))
        waiting = [scores.submit([row(*[number] * 8)])[0] for number in range(2, 8)]
        DEADLINE.reset(token)
        scores.speed.expect(10.0)
        scores.speed.pass_seconds, scores._full = 100.0, True
        scores.speed.note = lambda *given: None  # type: ignore[method-assign]  # this scorer is faster than it says
        scorer.gate.set()
        assert await values([first, *waiting]) == [1, 16, 24, 32, 40, 48, 56]
    assert [len(batch) for batch in scorer.batches] == [1, 2, 2, 2]


async def test_a_row_runs_however_late_if_nobody_waits_for_its_place() -> None:
    scorer = Adder()
    async with lane(scorer) as scores:
        scores.speed.pass_seconds = 100.0
        first = await held(scorer, scores)
        token = DEADLINE.set(asyncio.timeout_at(asyncio.get_running_loop().time() + 50))
        second = scores.submit([row(2)])
        DEADLINE.reset(token)
        scorer.gate.set()
        assert await values([first, *second]) == [1, 2]


async def test_the_speed_of_small_batches_refuses_nobody() -> None:
    scorer = Adder()
    async with lane(scorer) as scores:
        scores._note(LaneRun("adder", 9, 1000, 0, 0, 1.0))
        for _ in range(9):
            scores._note(LaneRun("adder", 1, 1, 0, 0, 1.0))
        scorer.gate.clear()
        rows = [scores.submit([row(*[mark] * 50)]) for mark in (1, 2)]
        token = DEADLINE.set(asyncio.timeout_at(asyncio.get_running_loop().time() + 4))
        rows.append(scores.submit([row(3)]))
        DEADLINE.reset(token)
        scorer.gate.set()
        assert len(await asyncio.gather(*(each for own in rows for each in own))) == 3


async def test_a_tenant_with_few_rows_does_not_wait_behind_one_with_many() -> None:
    scorer = Adder()
    async with lane(scorer) as scores:
        scorer.gate.clear()
        first = scores.submit([row(9)])
        await wait_until(lambda: scores.running == 1)
        token = TENANT.set("many")
        many = scores.submit([row(*[mark] * 30) for mark in range(1, 9)])
        TENANT.set("few")
        few = scores.submit([row(*[mark] * 30) for mark in (20, 21)])
        TENANT.reset(token)
        scorer.gate.set()
        await asyncio.gather(*first, *many, *few)
    assert [[row.ids[0] for row in batch] for batch in scorer.batches] == [
        [9],
        [1, 20],
        [2, 21],
        [3, 4],
        [5, 6],
        [7, 8],
    ]


async def test_a_call_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    scorer = Adder()
    async with lane(scorer, queue_tokens=3) as one:
        assert await values(one.submit([row(index, 1) for index in range(9)])) == [index + 1 for index in range(9)]


async def test_rows_of_a_caller_who_has_gone_are_not_run() -> None:
    scorer = Adder()
    async with lane(scorer) as one:
        running = await held(scorer, one)
        gone = one.submit([row(2), row(3)])
        kept = one.submit([row(3), row(4)])
        for future in gone:
            future.cancel()
        running.cancel()
        await asyncio.sleep(0)
        assert (one.queued_rows, one.queued_tokens) == (2, 2)
        scorer.gate.set()
        assert await values(kept) == [3, 4]
        assert await values(one.submit([row(2), row(1)])) == [2, 1]
    assert [each for batch in scorer.batches for each in batch] == [row(1), row(3), row(4), row(2), row(1)]


async def test_a_poisonous_row_fails_alone() -> None:
    scorer = Adder()
    async with lane(scorer) as one:
        futures = one.submit([row(1), row(2), row(POISON), row(3), row(4)])
        found = await asyncio.gather(*futures, return_exceptions=True)
    assert [each.values for each in found if isinstance(each, Rewards)] == [(1.0,), (2.0,), (3.0,), (4.0,)]
    (fault,) = [each for each in found if isinstance(each, BaseException)]
    assert isinstance(fault, ServerFault)
    assert fault.code == "runtime_failed"
    assert "ZeroDivisionError" in fault.message
    assert "poison" not in fault.message


async def test_a_text_too_long_for_the_device_is_told_so_and_the_batch_halved_for_the_rest() -> None:
    scorer = Adder()
    async with lane(scorer) as one:
        futures = one.submit([row(1), row(TOO_LONG), row(2)])
        found = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(found[1], Unprocessable)
    assert [each.values for each in (found[0], found[2]) if isinstance(each, Rewards)] == [(1.0,), (2.0,)]


async def test_a_reward_that_is_not_finite_is_a_fault_of_its_row() -> None:
    scorer = Adder()
    async with lane(scorer) as one:
        found = await asyncio.gather(*one.submit([row(1), row(INFINITE)]), return_exceptions=True)
    assert isinstance(found[0], Rewards)
    assert isinstance(found[1], ServerFault)
    assert found[1].code == "non_finite_score"


async def test_a_dead_runtime_fails_all_who_wait_and_all_who_come() -> None:
    scorer = Adder(BatchLimits(batch_tokens=1, batch_rows=1))
    async with lane(scorer) as one:
        await held(scorer, one)
        waiting = one.submit([row(FATAL), row(2), row(3)])
        scorer.gate.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [each.code for each in found if isinstance(each, Unavailable)] == ["engine_dead"] * 3
        assert one.failure is not None
        assert "the accelerator has failed" in one.failure
        with pytest.raises(Unavailable) as caught:
            one.submit([row(4)])
        assert (caught.value.code, caught.value.retry_after) == ("engine_dead", RESTARTING)


async def test_a_scorer_that_loses_a_row_fails_it() -> None:
    class Loser(Adder):
        def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
            return super().run(rows, fresh)[1:]

    async with lane(Loser()) as one:
        found = await asyncio.gather(*one.submit([row(1), row(2)]), return_exceptions=True)
    assert [each.code for each in found if isinstance(each, ServerFault)] == ["runtime_failed"] * 2


async def test_a_worker_that_dies_otherwise_leaves_nobody_waiting() -> None:
    def observe(ran: LaneRun) -> None:
        raise LookupError("no such meter")

    async with lane(Adder(), observe=observe) as one:
        found = await asyncio.gather(*one.submit([row(1), row(2)]), return_exceptions=True)
        assert [each.code for each in found if isinstance(each, Unavailable)] == ["engine_dead"] * 2
        assert one.failure == "tiny has died: LookupError: no such meter"


async def test_a_panic_that_is_no_exception_leaves_nobody_waiting() -> None:
    async with lane(Adder()) as one:
        found = await asyncio.gather(*one.submit([row(PANIC), row(2)]), return_exceptions=True)
        assert [each.code for each in found if isinstance(each, Unavailable)] == ["engine_dead"] * 2
        assert one.death == "tiny has died: GeneratorExit: a panic in Rust code"


async def test_a_runtime_that_restarts_is_not_dead_until_it_says_so() -> None:
    scorer = Adder()
    async with lane(scorer) as one:
        scorer.failure = "the engine has died and is starting again"
        assert (one.failure, one.death) == (scorer.failure, None)
        scorer.failure, scorer.dead = "the engine has died 4 times", True
        assert one.death == "the engine has died 4 times"
        scorer.failure, scorer.dead = None, False


async def test_a_pass_that_is_stuck_is_found_and_its_callers_are_answered() -> None:
    scorer = Adder()
    async with lane(scorer) as one:
        assert (one.busy_seconds, find_death([one], 0)) == (0, None)
        running = await held(scorer, one)
        waiting = one.submit([row(2)])
        await wait_until(lambda: one.busy_seconds > 0.01)
        assert find_death([one], 3600) is None
        death = find_death([one], 0.01)
        assert death is not None
        assert death.startswith("tiny is stuck: a forward pass has run for 0.")
        one.abandon(Unavailable(death, code="engine_dead"))
        found = await asyncio.gather(running, *waiting, return_exceptions=True)
        assert [str(each) for each in found] == [death] * 2
        with pytest.raises(Unavailable, match="is stuck"):
            one.submit([row(3)])
        await one.close()  # it does not wait for the thread
        scorer.gate.set()
        await wait_until(lambda: one.busy_seconds == 0)


async def test_closing_finishes_what_waits_and_refuses_what_comes() -> None:
    scorer = Adder()
    one = ScorerLane("tiny", scorer, 1000)
    running = await held(scorer, one)
    waiting = one.submit([row(2), row(3)])
    closing = asyncio.create_task(one.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as caught:
        one.submit([row(4)])
    assert caught.value.code == "draining"
    scorer.gate.set()
    await closing
    assert await values([running, *waiting]) == [1, 2, 3]
    assert scorer.closed


async def test_what_ran_is_told() -> None:
    told: list[LaneRun] = []
    scorer = Adder()
    async with lane(scorer, observe=told.append) as one:
        await asyncio.gather(*one.submit([row(1, 1), row(2, 2), row(INFINITE)]), return_exceptions=True)
        assert one.speed.recent > 0
    (ran,) = told
    assert (ran.lane, ran.rows, ran.tokens, ran.failed) == ("tiny", 3, 5, 1)
    assert ran.seconds > 0


async def test_many_callers_at_once_each_get_their_own() -> None:
    scorer = Adder()

    async def caller(number: int, one: ScorerLane) -> list[float]:
        await asyncio.sleep(0)
        futures = one.submit([row(number, index) for index in range(5)])
        if number % 3 == 0:
            futures[0].cancel()
            futures = futures[1:]
        return await values(futures)

    async with lane(scorer, queue_tokens=10_000) as one:
        found = await asyncio.gather(*(caller(number, one) for number in range(40)))
        assert one.queued_rows == 0
    for number, rewards in enumerate(found):
        assert rewards == [number + index for index in range(number % 3 == 0, 5)]


# --------------------------------------------------------------------------- a scorer that is down, and back


async def test_a_scorer_that_is_down_refuses_until_it_is_back() -> None:
    scorer = Adder()
    async with lane(scorer) as one:
        running = await held(scorer, one)
        (waiting,) = one.submit([row(2)])
        scorer.failure = "tiny: the engine has died and is starting again"
        with pytest.raises(Unavailable) as caught:
            one.submit([row(3)])
        assert (caught.value.code, caught.value.retry_after) == ("engine_dead", RESTARTING)
        assert caught.value.message == one.failure == scorer.failure
        assert one.queued_rows == 1
        scorer.gate.set()
        assert await values([running, waiting]) == [1, 2]
        scorer.failure = None
        assert one.failure is None
        assert await values(one.submit([row(3)])) == [3]


# --------------------------------------------------------------------------- errors of single rows


class Picky(Adder):
    """Gives an error in place of a row's reward, and all the others their own."""

    def __init__(self, error: TureenError) -> None:
        super().__init__()
        self.error = error

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        return [
            self.error if REFUSED in row.ids else result
            for row, result in zip(rows, super().run(rows, fresh), strict=True)
        ]


@pytest.mark.parametrize(
    "error",
    [
        Unprocessable("vLLM refuses the text", code="invalid_value"),
        ServerFault("tiny failed", code="runtime_failed"),
        Unavailable("tiny died during the request", code="engine_dead", retry_after=10),
    ],
    ids=lambda error: error.code,
)
async def test_an_error_of_one_row_reaches_its_callers_and_nobody_else(error: TureenError) -> None:
    told: list[LaneRun] = []
    scorer = Picky(error)
    async with lane(scorer, observe=told.append) as one:
        first = await held(scorer, one)
        mine, yours = one.submit([row(2), row(REFUSED), row(3)]), one.submit([row(REFUSED), row(4)])
        scorer.gate.set()
        found = await asyncio.gather(first, *mine, *yours, return_exceptions=True)
        assert [each.values[0] for each in found if isinstance(each, Rewards)] == [1, 2, 3, 4]
        assert [index for index, each in enumerate(found) if each is error] == [2, 4]
        assert one.failure is None
        assert await values(one.submit([row(5)])) == [5]
    assert [len(batch) for batch in scorer.batches] == [1, 4, 1]  # nothing is tried again in halves
    assert [(ran.rows, ran.failed) for ran in told] == [(1, 0), (4, 1), (1, 0)]


# --------------------------------------------------------------------------- several threads


class Streams(Adder):
    """Takes several batches of one row at once: each waits in ``run`` until all threads are there.

    Attributes:
        busiest: the most batches that were in ``run`` at one time.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(BatchLimits(batch_tokens=64, batch_rows=1))
        self.threads = threads
        self.busiest = 0
        self._inside = 0
        self._count = threading.Lock()
        self._all = threading.Barrier(threads, timeout=20)

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        with self._count:
            self._inside += 1
            self.busiest = max(self.busiest, self._inside)
        self._all.wait()
        found = super().run(rows, fresh)
        with self._count:
            self._inside -= 1
        return found


class Pairs(Adder):
    """Takes two batches of one row at once; a fatal row does not wait at the gate."""

    threads = 2

    def __init__(self) -> None:
        super().__init__(BatchLimits(batch_tokens=64, batch_rows=1))

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        if FATAL in rows[0].ids:
            raise Unavailable("the accelerator has failed", code="engine_dead")
        return super().run(rows, fresh)


@pytest.mark.parametrize("threads", [1, 2, 3])
async def test_as_many_batches_run_at_once_as_the_scorer_has_threads(threads: int) -> None:
    scorer, told = Streams(threads), list[LaneRun]()
    async with lane(scorer, observe=told.append) as one:
        found = await asyncio.gather(
            *(values(one.submit([row(number, index) for index in range(4)])) for number in range(12))
        )
        assert one.running == 0
    assert found == [[number + index for index in range(4)] for number in range(12)]
    assert scorer.busiest == threads
    assert len(scorer.batches) == sum(ran.rows for ran in told) == 48
    assert sum(ran.tokens for ran in told) == 96


async def both(scorer: Adder, one: ScorerLane) -> list["asyncio.Future[Rewards]"]:
    """Submit two rows and wait until a worker stands at the gate with each."""
    first = await held(scorer, one)
    scorer.started.clear()
    (second,) = one.submit([row(2)])
    assert await asyncio.to_thread(scorer.started.wait, 20)
    return [first, second]


async def test_a_row_that_runs_in_one_stream_is_not_run_in_another() -> None:
    scorer = Pairs()
    async with lane(scorer) as one:
        running = await both(scorer, one)
        assert (one.running, one.queued_rows) == (2, 0)
        again = one.submit([row(1), row(2), row(3)])
        assert one.queued_rows == 1
        scorer.gate.set()
        assert await values([*running, *again]) == [1, 2, 1, 2, 3]
    assert sorted(len(batch) for batch in scorer.batches) == [1, 1, 1]


async def test_closing_finishes_what_every_stream_has() -> None:
    scorer = Pairs()
    one = ScorerLane("twofold", scorer, 1000)
    running = await both(scorer, one)
    waiting = one.submit([row(index) for index in range(3, 9)])
    closing = asyncio.create_task(one.close())
    await asyncio.sleep(0)
    assert not scorer.closed
    scorer.gate.set()
    await closing
    assert await values([*running, *waiting]) == list(range(1, 9))
    assert scorer.closed
    assert "lane twofold" not in {thread.name for thread in threading.enumerate()}


async def test_a_death_in_one_stream_is_told_to_the_callers_of_all() -> None:
    scorer = Pairs()
    async with lane(scorer) as one:
        running = await held(scorer, one)
        found = await asyncio.gather(running, *one.submit([row(FATAL), row(3)]), return_exceptions=True)
        assert [each.code for each in found if isinstance(each, Unavailable)] == ["engine_dead"] * 3
        assert one.failure == "tiny has died: the accelerator has failed"
        assert (one.running, one.queued_rows) == (0, 0)
        with pytest.raises(Unavailable):
            one.submit([row(4)])
    assert scorer.closed


# --------------------------------------------------------------------------- scores that are kept


async def test_a_score_that_is_kept_is_not_computed_again() -> None:
    scorer = Adder()
    async with lane(scorer, kept=8) as one:
        first = await asyncio.gather(*one.submit([row(1, 2)]))
        again = await asyncio.gather(*one.submit([row(1, 2), row(3, 4)]))
        assert [each.values for each in again] == [(3.0,), (7.0,)]
        assert (first[0].cached, again[0].cached, one.cache_hits) == (0, 2, 1)
    assert scorer.batches == [[row(1, 2)], [row(3, 4)]]


async def test_without_room_nothing_is_kept() -> None:
    scorer = Adder()
    async with lane(scorer) as one:
        for _ in range(2):
            await asyncio.gather(*one.submit([row(1)]))
    assert len(scorer.batches) == 2


async def test_a_failure_is_not_kept() -> None:
    scorer = Adder()
    async with lane(scorer, kept=8) as one:
        for _ in range(2):
            (found,) = await asyncio.gather(*one.submit([row(INFINITE)]), return_exceptions=True)
            assert isinstance(found, ServerFault)
    assert len(scorer.batches) == 2


async def test_a_job_neither_finds_nor_leaves_scores() -> None:
    scorer = Adder()
    async with lane(scorer, kept=8) as one:
        for priority in ("default", "batch", "batch"):
            await asyncio.gather(*one.submit([row(1)], priority))
        await asyncio.gather(*one.submit([row(2)], "batch"))
        await asyncio.gather(*one.submit([row(2)]))
    assert [rows[0].ids[0] for rows in scorer.batches] == [1, 1, 1, 2, 2]
    assert scorer.fresh == [False, True, True, True, False]


async def test_what_is_kept_takes_no_place_in_the_queue() -> None:
    scorer = Adder()
    async with lane(scorer, queue_tokens=4, kept=8) as one:
        await asyncio.gather(*one.submit([row(1, 2, 3)]))
        scorer.gate.clear()
        waiting = [await held(scorer, one), *one.submit([row(4, 5)])]
        (known,) = one.submit([row(1, 2, 3)])
        assert known.done()
        scorer.gate.set()
        await asyncio.gather(*waiting)


async def test_a_job_turns_nobody_away_and_is_itself_turned_away() -> None:
    scorer = Adder()
    async with lane(scorer, queue_tokens=4) as one:
        scorer.gate.clear()
        running = await held(scorer, one)
        job = one.submit([row(1, 2, 3)], "batch")
        online = one.submit([row(4, 5, 6)])
        with pytest.raises(Unavailable, match="is full: 6 tokens wait"):
            one.submit([row(7)], "batch")
        with pytest.raises(Unavailable, match="is full: 3 tokens wait"):
            one.submit([row(7, 8)])
        scorer.gate.set()
        await asyncio.gather(running, *job, *online)
