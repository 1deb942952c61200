"""When work is done: leases are held and given back, and nothing waits for nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from serve.counting import CountingEngine
from serve.requests import names, scores
from serve.stores import Clock
from sqlalchemy import select
from waiting import wait_until

from tureen.errors import Unavailable
from tureen.wire import Batch, BatchRequest
from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.batches import schema
from tureen_serve.batches.batch_service import BatchService
from tureen_serve.batches.database import Database
from tureen_serve.batches.leases import Leases
from tureen_serve.batches.records import ENDED
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics


class Host:
    """Files and batches as a server has them, over an engine that may be missing."""

    def __init__(self, folder: Path, engine: Engine | None, **options: Any) -> None:
        pace = {"poll_seconds": 0.02, "chunk_lines": 3, **options}
        self.engine = engine
        self.lookups = 0
        self.batches = BatchService(BatchSettings(folder=folder, **pace), BATCH_ENDPOINTS, self.find_engine, Metrics())

    def find_engine(self) -> Engine | None:
        """What the runner asks for before it looks for a chunk."""
        self.lookups += 1
        return self.engine

    def submit(self, content: bytes, window: str = "24h") -> str:
        """A new batch over a new file."""
        opened = self.batches.opened()
        stored = opened.files.write(f"uploads/{len(opened.store.list_files(99).data)}", [content])
        file = opened.store.add_file(stored, "in.jsonl")
        request = BatchRequest(input_file_id=file.id, endpoint="/v1/score", completion_window=window)
        made = opened.store.create_batch(request)
        opened.wake()
        return made.id

    def batch(self, name: str) -> Batch:
        """A batch as it stands."""
        return self.batches.opened().store.get_batch(name)

    def state(self) -> str:
        """How files and batches are."""
        return self.batches.state

    def output(self, name: str) -> list[str]:
        """The lines of a batch's output."""
        opened = self.batches.opened()
        file = self.batch(name).output_file_id
        return names(b"".join(opened.files.read(opened.store.get_file(file)[1].key))) if file else []

    async def ended(self, name: str) -> Batch:
        """A batch that has ended."""
        await wait_until(lambda: self.batch(name).status in ENDED)
        return self.batch(name)


@asynccontextmanager
async def hosting(folder: Path, engine: Engine | None, **options: Any) -> AsyncIterator[Host]:
    host = Host(folder, engine, **options)
    await host.batches.connect()
    try:
        yield host
    finally:
        await host.batches.close()


def gated() -> CountingEngine:
    engine = CountingEngine()
    engine.gate.clear()
    return engine


def set_clock(*hosts: Host) -> Clock:
    """A clock for the databases of these hosts, which only the test moves on."""
    clock = Clock()
    for host in hosts:
        assert host.batches._database is not None
        host.batches._database._clock = clock
    return clock


def leased_until(host: Host) -> float | None:
    """When the lease of the one chunk is over."""
    assert host.batches._database is not None
    with host.batches._database.reading() as connection:
        until: float | None = connection.execute(select(schema.chunks.c.leased_until)).scalar_one()
        return until


def chunks(folder: Path, name: str) -> list[tuple[str | None, int]]:
    """Where each chunk's result is, and at how many workers' deaths."""
    database = Database(f"sqlite:///{folder}/batches.sqlite")
    found = [(chunk.key, chunk.deaths) for chunk in Leases(database, 60).chunks(name)]
    database.close()
    return found


def test_a_batch_runs_by_itself(tmp_path: Path) -> None:
    async def work() -> None:
        async with hosting(tmp_path, CountingEngine()) as host:
            name = host.submit(scores(8, bad=99))
            assert (await host.ended(name)).status == "completed"
            assert host.output(name) == [f"n{n}" for n in range(1, 9)]

    asyncio.run(work())


def test_it_is_validated_while_the_models_load_and_run_once_they_are_there(tmp_path: Path) -> None:
    async def work() -> None:
        async with hosting(tmp_path, None) as host:
            name = host.submit(scores(8))
            await wait_until(lambda: host.batch(name).status == "in_progress")
            seen = host.lookups
            await wait_until(lambda: host.lookups > seen + 3)
            assert host.batch(name).request_counts.completed == 0
            host.engine = CountingEngine()
            assert (await host.ended(name)).status == "completed"

    asyncio.run(work())


def test_one_chunk_runs_at_a_time_unless_told_otherwise(tmp_path: Path) -> None:
    async def work(chunks_at_once: int, expected: int) -> None:
        engine = gated()
        async with hosting(tmp_path / str(expected), engine, chunks=chunks_at_once) as host:
            name = host.submit(scores(12, bad=99))
            await wait_until(lambda: engine.running == expected)
            engine.gate.set()
            await host.ended(name)
            assert engine.most_running == expected

    asyncio.run(work(1, 1))
    asyncio.run(work(3, 3))


def test_a_lease_is_held_while_its_work_goes_on(tmp_path: Path) -> None:
    async def work() -> None:
        engine = gated()
        options = {"lease_seconds": 0.4}
        async with hosting(tmp_path, engine, **options) as host, hosting(tmp_path, engine, **options) as other:
            clock = set_clock(host, other)
            name = host.submit(scores(3, bad=99))
            await wait_until(lambda: engine.running == 1)
            for _ in range(5):  # more time than the lease holds, and always less than it has left
                clock.now += 0.3
                await wait_until(lambda: leased_until(host) == clock.now + 0.4)
            assert engine.running == 1
            engine.gate.set()
            assert (await other.ended(name)).request_counts.completed == 3
            assert len(engine.calls) == 1

    asyncio.run(work())


def test_cancelling_ends_the_work_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        engine = gated()
        async with hosting(tmp_path, engine) as host:
            name = host.submit(scores(8, bad=99))
            await wait_until(lambda: engine.running == 1)
            opened = host.batches.opened()
            opened.store.cancel_batch(name)
            opened.wake()
            await wait_until(lambda: engine.dropped == 1)
            batch = await host.ended(name)
            assert (batch.status, batch.request_counts.failed, host.output(name)) == ("cancelled", 8, [])

    asyncio.run(work())


def test_what_another_replica_cancels_ends_within_a_beat(tmp_path: Path) -> None:
    async def work() -> None:
        engine = gated()
        async with hosting(tmp_path, engine, lease_seconds=0.4) as host, hosting(tmp_path, None, worker=False) as other:
            name = host.submit(scores(8, bad=99))
            await wait_until(lambda: engine.running == 1)
            other.batches.opened().store.cancel_batch(name)
            await wait_until(lambda: engine.dropped == 1)
            assert (await host.ended(name)).status == "cancelled"

    asyncio.run(work())


def test_a_batch_whose_window_closes_keeps_what_is_finished(tmp_path: Path) -> None:
    async def work() -> None:
        engine = CountingEngine()
        engine.pause_call = 2
        async with hosting(tmp_path, engine) as host:
            clock = set_clock(host)
            name = host.submit(scores(8, bad=99), "1m")
            await wait_until(lambda: len(engine.calls) == 2)
            done = host.batch(name).request_counts.completed
            assert done == 3
            clock.now += 61
            batch = await host.ended(name)
            assert (batch.status, batch.expired_at) == ("expired", clock.now)
            assert (batch.request_counts.completed, batch.request_counts.failed) == (done, 8 - done)
            assert len(host.output(name)) == done
            engine.gate.set()

    asyncio.run(work())


def test_a_server_that_leaves_gives_its_chunk_back(tmp_path: Path) -> None:
    async def work() -> None:
        engine = gated()
        async with hosting(tmp_path, engine) as host:
            name = host.submit(scores(6, bad=99))
            await wait_until(lambda: engine.running == 1)
        assert engine.dropped == 1
        assert chunks(tmp_path, name) == [(None, 0), (None, 0)]
        async with hosting(tmp_path, CountingEngine()) as host:
            assert (await host.ended(name)).request_counts.completed == 6

    asyncio.run(work())


def test_a_server_that_dies_is_followed_when_its_lease_is_over(tmp_path: Path) -> None:
    async def work() -> None:
        async with hosting(tmp_path, None) as host:
            name = host.submit(scores(6, bad=99))
            await wait_until(lambda: host.batch(name).status == "in_progress")
            database = Database(f"sqlite:///{tmp_path}/batches.sqlite")
            assert Leases(database, 0.5).take_chunk() is not None  # by one that is never heard of again
            database.close()
            host.engine = CountingEngine()
            await host.ended(name)
            assert host.output(name) == [f"n{n}" for n in range(1, 7)]

    asyncio.run(work())


def test_an_engine_that_cannot_is_asked_again_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        engine = CountingEngine()
        engine.broken = Unavailable("the queue is full")
        async with hosting(tmp_path, engine) as host:
            name = host.submit(scores(3, bad=99))
            await wait_until(lambda: engine.calls)
            await wait_until(lambda: "the queue is full" in caplog.text)
            engine.broken = None
            assert (await host.ended(name)).request_counts.completed == 3

    asyncio.run(work())
    assert "waits 1 s" in caplog.text


def test_a_store_that_fails_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with hosting(tmp_path, CountingEngine()) as host:
            database = tmp_path / "batches.sqlite"
            assert host.state() == "working"
            away = database.rename(tmp_path / "away")
            await wait_until(lambda: caplog.text.count("batches wait") == 2)  # both loops have seen it
            assert host.state() == "failing"
            assert not database.exists()
            away.rename(database)
            name = host.submit(scores(3))
            assert (await host.ended(name)).status == "completed"
            await wait_until(lambda: host.state() == "working")

    asyncio.run(work())
    assert "batches.sqlite is missing; put it back" in caplog.text


def test_a_runner_that_cannot_look_for_work_is_failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Leases) -> None:
        raise RuntimeError("a mistake of ours")

    async def work() -> None:
        async with hosting(tmp_path, CountingEngine()) as host:
            with monkeypatch.context() as patch:
                patch.setattr(Leases, "take_batch", broken)
                await wait_until(lambda: host.state() == "failing")
            host.batches.opened().wake()
            await wait_until(lambda: host.state() == "working")

    asyncio.run(work())


def test_two_replicas_share_a_batch(tmp_path: Path) -> None:
    async def work() -> None:
        engines = [CountingEngine(), CountingEngine()]
        async with (
            hosting(tmp_path, engines[0], chunk_lines=1) as one,
            hosting(tmp_path, engines[1], chunk_lines=1) as other,
        ):
            name = one.submit(scores(40, bad=99))
            other.batches.opened().wake()
            await one.ended(name)
            assert one.output(name) == [f"n{n}" for n in range(1, 41)]
        assert sum(len(engine.calls) for engine in engines) == 40

    asyncio.run(work())
