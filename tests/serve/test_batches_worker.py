"""What is done under a lease, and that a worker may be killed before and after every step of it."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest
from serve.counting import CountingEngine
from serve.requests import line, names, score, scores, told
from serve.stores import Clock

from tureen.errors import Unavailable
from tureen.wire import Batch, BatchRequest
from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.batches.database import Database
from tureen_serve.batches.file_store import FileStore
from tureen_serve.batches.io_threads import IoThreads
from tureen_serve.batches.leases import LeaseLost, Leases
from tureen_serve.batches.metrics import BatchMetrics
from tureen_serve.batches.store import Store
from tureen_serve.batches.worker import ATTEMPTS, MOST_DEATHS, Worker
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics

P = ParamSpec("P")
T = TypeVar("T")
LEASE = 60
OPTIONS = BatchSettings(chunk_lines=3, lease_seconds=LEASE)


class Killed(Exception):
    """The process is no more."""


class Mortal(IoThreads):
    """Dies at its nth call: before it, or just after."""

    def __init__(self, at: int | None = None, after: bool = False) -> None:
        super().__init__(1)
        self.calls = 0
        self._at = at
        self._after = after

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.calls += 1
        if self.calls == self._at and not self._after:
            raise Killed
        found = await super().__call__(function, *args, **kwargs)
        if self.calls == self._at:
            raise Killed
        return found


class Shop:
    """A store in a folder, and workers over it, one life after the other."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.database = Database(f"sqlite:///{folder}/batches.sqlite", self.clock)
        self.store = Store(self.database)
        self.files = FileStore(str(folder / "files"))
        self.metrics = Metrics()
        self.meters = BatchMetrics(self.metrics.registry, lambda: False)
        self.leases = Leases(self.database, LEASE)

    def submit(self, content: bytes, endpoint: Any = "/v1/score") -> str:
        """A new batch over a new file."""
        stored = self.files.write(f"uploads/{len(self.store.list_files(99).data)}", [content])
        file = self.store.add_file(stored, "in.jsonl")
        request = BatchRequest(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
        return self.store.create_batch(request).id

    async def live(self, engine: Engine, io: IoThreads) -> None:
        """Work until nothing is left; closes ``aside``."""
        leases = Leases(self.database, LEASE)
        worker = Worker(leases, self.files, BATCH_ENDPOINTS, OPTIONS, io, self.metrics, self.meters)
        try:
            while True:
                if lease := await io(leases.take_batch):
                    work = worker.validate if lease.status == "validating" else worker.finish
                    await work(lease)
                elif (lease := await io(leases.take_chunk)) and lease.chunk:
                    await worker.run(engine, lease, lease.chunk)
                else:
                    return await worker.tidy()
        finally:
            io.close()

    def content(self, name: str | None) -> bytes:
        """The bytes of a file."""
        return b"".join(self.files.read(self.store.get_file(name)[1].key)) if name else b""

    def outcome(self, batch_id: str) -> tuple[Batch, bytes, bytes]:
        """A batch, its output and its errors."""
        batch = self.store.get_batch(batch_id)
        return batch, self.content(batch.output_file_id), self.content(batch.error_file_id)


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    found = Shop(tmp_path)
    yield found
    found.database.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def finished(shop: Shop, content: bytes, engine: Engine | None = None, endpoint: Any = "/v1/score") -> Any:
    name = shop.submit(content, endpoint)
    run(shop.live(engine or CountingEngine(), IoThreads()))
    return shop.outcome(name)


# --------------------------------------------------------------------------- a life


def test_every_line_is_answered_once_in_order(shop: Shop) -> None:
    batch, output, errors = finished(shop, scores(11))
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 9, 2)
    assert names(output) == [f"n{n}" for n in range(1, 12) if n % 5]
    assert names(errors) == ["n5", "n10"]


def test_a_chunk_is_one_call_of_the_engine(shop: Shop) -> None:
    engine = CountingEngine()
    finished(shop, scores(7, bad=99), engine)
    assert [len(groups) for groups, _ in engine.calls] == [3, 3, 1]


def test_a_bad_line_fails_the_batch_before_any_model_is_touched(shop: Shop) -> None:
    engine = CountingEngine()
    batch, output, errors = finished(shop, scores(4) + b"{}\n" + scores(1), engine)
    assert (batch.status, output, errors, engine.calls) == ("failed", b"", b"", [])
    assert batch.errors is not None
    assert [error.line for error in batch.errors.data] == [5, 6]
    assert batch.failed_at is not None


def test_a_file_that_was_changed_is_not_run(shop: Shop, tmp_path: Path) -> None:
    name = shop.submit(scores(3))
    (tmp_path / "files" / "uploads" / "0").write_bytes(scores(4))
    run(shop.live(CountingEngine(), IoThreads()))
    batch, _, _ = shop.outcome(name)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data[0].code == "input_changed"


def test_texts_are_written_too(shop: Shop) -> None:
    bodies = [{"messages": [{"role": "user", "content": "hi"}], "seed": seed, "preset": "even"} for seed in range(5)]
    content = b"".join(line(f"n{n}", body, "/v1/chat/completions") for n, body in enumerate(bodies))
    batch, output, _ = finished(shop, content, endpoint="/v1/chat/completions")
    assert names(output) == [f"n{n}" for n in range(5)]
    replies = [each["response"]["body"] for each in told(output)]
    assert all(reply["object"] == "chat.completion" for reply in replies)
    assert batch.usage is not None
    assert batch.usage.output_tokens == sum(reply["usage"]["completion_tokens"] for reply in replies) == 30


def test_responses_are_written_and_their_tokens_counted(shop: Shop) -> None:
    bodies = [{"input": "hi", "seed": seed, "preset": "even"} for seed in range(3)]
    content = b"".join(line(f"n{n}", body, "/v1/responses") for n, body in enumerate(bodies))
    batch, output, _ = finished(shop, content, endpoint="/v1/responses")
    usages = [each["response"]["body"]["usage"] for each in told(output)]
    assert batch.usage is not None
    assert batch.usage.output_tokens == sum(usage["output_tokens"] for usage in usages) == 18
    assert batch.usage.input_tokens == sum(usage["input_tokens"] for usage in usages) > 0


def test_nothing_is_left_but_what_was_asked_for(shop: Shop, tmp_path: Path) -> None:
    batch, _, _ = finished(shop, scores(11))
    left = sorted(path.parent.name for path in (tmp_path / "files").rglob("*") if path.is_file())
    assert left == [batch.id, batch.id, "uploads"]
    assert shop.leases.chunks(batch.id) == []


def test_what_was_done_is_counted(shop: Shop) -> None:
    finished(shop, scores(11))
    value = shop.metrics.registry.get_sample_value
    assert value("tureen_job_lines_total", {"outcome": "completed"}) == 9
    assert value("tureen_job_lines_total", {"outcome": "failed"}) == 2
    assert value("tureen_jobs", {"state": "completed"}) == 1
    assert value("tureen_jobs", {"state": "validating"}) == 0
    assert value("tureen_job_duration_seconds_count") == 1


# --------------------------------------------------------------------------- killed


@pytest.mark.long
def test_killed_at_every_step_the_output_is_the_same(tmp_path: Path) -> None:
    """Every call of a whole life is one point to die before, and one to die after."""
    whole = Mortal()
    first = Shop(tmp_path / "undisturbed")
    name = first.submit(scores(5))
    run(first.live(CountingEngine(), whole))
    _, output, errors = first.outcome(name)
    first.database.close()
    assert whole.calls > 15
    for at in range(1, whole.calls + 1):
        for after in (False, True):
            shop = Shop(tmp_path / f"{at}-{after}")
            name = shop.submit(scores(5))
            with pytest.raises(Killed):
                run(shop.live(CountingEngine(), Mortal(at, after)))
            shop.clock.now += LEASE
            run(shop.live(CountingEngine(), IoThreads()))
            batch, *again = shop.outcome(name)
            assert (at, after, batch.status, batch.request_counts.completed) == (at, after, "completed", 4)
            assert [told(each) for each in again] == [told(output), told(errors)]
            assert len(shop.store.list_files(9, purpose="batch_output").data) == 2
            assert shop.leases.upkeep.find_unswept() == []
            left = [path for path in (tmp_path / f"{at}-{after}" / "files" / "batches").rglob("*") if path.is_file()]
            assert len(left) == 2
            shop.database.close()


def test_killed_at_every_second_step_it_comes_to_its_end(shop: Shop) -> None:
    name = shop.submit(scores(8))
    lives = 0
    while shop.store.get_batch(name).status != "completed":
        lives += 1
        assert lives < 60
        with pytest.raises(Killed):
            run(shop.live(CountingEngine(), Mortal(6 + lives % 3, after=bool(lives % 2))))
        shop.clock.now += LEASE
    _, output, errors = shop.outcome(name)
    assert sorted(names(output) + names(errors)) == [f"n{n}" for n in range(1, 9)]
    assert lives > 2


def test_a_slow_worker_leaves_no_trace(shop: Shop) -> None:
    """It writes its result after another has, and all of it is void."""
    name = shop.submit(scores(3))

    async def work() -> None:
        io = IoThreads(1)
        worker = Worker(shop.leases, shop.files, BATCH_ENDPOINTS, OPTIONS, io, shop.metrics, shop.meters)
        lease = shop.leases.take_batch()
        assert lease is not None
        await worker.validate(lease)
        slow = shop.leases.take_chunk()
        assert slow is not None
        assert slow.chunk is not None
        shop.clock.now += LEASE
        await shop.live(CountingEngine(), IoThreads())
        with pytest.raises(LeaseLost):
            await worker.run(CountingEngine(), slow, slow.chunk)
        io.close()

    run(work())
    batch, output, _ = shop.outcome(name)
    assert (batch.status, len(output.splitlines())) == ("completed", 3)
    assert {key.rsplit("/")[-1].split("-")[0] for key in _stored(shop, name)} == {"output"}


def _stored(shop: Shop, name: str) -> list[str]:
    return [str(key) for key in shop.files._system.find(shop.files._path(f"batches/{name}"))]


def test_a_worker_that_could_not_end_a_batch_leaves_no_files(shop: Shop) -> None:
    name = shop.submit(scores(3))

    async def work() -> None:
        io = IoThreads(1)
        worker = Worker(shop.leases, shop.files, BATCH_ENDPOINTS, OPTIONS, io, shop.metrics, shop.meters)
        with pytest.raises(Killed):
            await shop.live(CountingEngine(), Mortal(10))  # all is run and nothing is put together
        lease = shop.leases.take_batch()
        assert lease is not None
        assert lease.status == "finalizing"
        shop.clock.now += LEASE
        await shop.live(CountingEngine(), IoThreads())
        with pytest.raises(LeaseLost):
            await worker.finish(lease)
        io.close()

    run(work())
    assert len(_stored(shop, name)) == 1


# --------------------------------------------------------------------------- what fails


def test_an_engine_that_is_down_stops_the_chunk_and_nothing_else(shop: Shop) -> None:
    name = shop.submit(scores(4))
    engine = CountingEngine()
    engine.broken = Unavailable("it went away", code="engine_dead")
    with pytest.raises(Unavailable, match="it went away"):
        run(shop.live(engine, IoThreads()))
    assert shop.store.get_batch(name).request_counts.failed == 0
    engine.broken = None
    shop.clock.now += LEASE
    run(shop.live(engine, IoThreads()))
    assert shop.store.get_batch(name).status == "completed"


def test_a_line_at_which_the_server_fails_gets_three_tries(shop: Shop) -> None:
    content = line("a", score("calm")) + line("b", score("boundless")) + line("c", score("funny"))
    engine = CountingEngine()
    batch, output, errors = finished(shop, content, engine)
    assert (batch.status, names(output), names(errors)) == ("completed", ["a", "c"], ["b"])
    assert [len(groups) for groups, _ in engine.calls] == [3, 1, 1]
    assert len(engine.calls) == ATTEMPTS
    (told_error,) = told(errors)
    assert told_error["response"]["status_code"] == 500
    assert told_error["response"]["body"]["error"]["code"] == "non_finite_score"


def test_a_fault_that_passes_is_no_error(shop: Shop) -> None:
    class Flaky(CountingEngine):
        failures = 2

        async def score(self, groups: Any, *arguments: Any, **more: Any) -> Any:
            if any("funny" in answer[-1]["content"] for group in groups for answer in group.answers) and self.failures:
                self.failures -= 1
                raise ZeroDivisionError
            return await super().score(groups, *arguments, **more)

    content = line("a", score("calm")) + line("b", score("funny"))
    batch, output, _ = finished(shop, content, Flaky())
    assert (batch.request_counts.completed, names(output)) == (2, ["a", "b"])


def test_a_chunk_at_which_servers_die_is_given_up_in_the_end(shop: Shop) -> None:
    name = shop.submit(scores(3, bad=99))
    for death in range(MOST_DEATHS):
        with pytest.raises(Killed):
            run(shop.live(CountingEngine(), Mortal(3 if death else 6)))  # while it reads the first chunk's lines
        shop.clock.now += LEASE
    engine = CountingEngine()
    run(shop.live(engine, IoThreads()))
    batch, output, errors = shop.outcome(name)
    assert (batch.status, names(output), names(errors)) == ("completed", [], ["n1", "n2", "n3"])
    assert {each["response"]["body"]["error"]["code"] for each in told(errors)} == {"worker_died"}
    assert engine.calls == []


def test_what_an_older_server_took_and_this_one_does_not_is_an_error(shop: Shop) -> None:
    """The line was valid when it was checked."""
    name = shop.submit(scores(3, bad=99))

    async def work() -> None:
        io = IoThreads(1)
        told = OPTIONS.model_copy(update={"line_bytes": 120})
        lax = Worker(shop.leases, shop.files, BATCH_ENDPOINTS, OPTIONS, io, shop.metrics, shop.meters)
        strict = Worker(shop.leases, shop.files, BATCH_ENDPOINTS, told, io, shop.metrics, shop.meters)
        lease = shop.leases.take_batch()
        assert lease is not None
        await lax.validate(lease)
        lease = shop.leases.take_chunk()
        assert lease is not None
        assert lease.chunk is not None
        await strict.run(CountingEngine(), lease, lease.chunk)
        await shop.live(CountingEngine(), io)

    run(work())
    batch, _, errors = shop.outcome(name)
    assert batch.status == "completed"
    assert names(errors)
    assert {each["response"]["body"]["error"]["code"] for each in told(errors)} == {"line_too_long"}


def test_a_worker_that_leaves_breaks_off_its_look_at_the_input(shop: Shop) -> None:
    shop.submit(scores(3))

    async def work() -> None:
        io = IoThreads(1)
        worker = Worker(shop.leases, shop.files, BATCH_ENDPOINTS, OPTIONS, io, shop.metrics, shop.meters)
        lease = shop.leases.take_batch()
        assert lease is not None
        worker.leave()
        with pytest.raises(Unavailable, match="shutting down"):
            await worker.validate(lease)
        io.close()

    run(work())
