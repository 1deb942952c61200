"""Upkeep of the tables, over SQLite and a real PostgreSQL: leftovers are found once, counts are right."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres import Postgres
from serve.stores import Bench

from tureen.wire import BatchErrors
from tureen_serve.batches.records import Lease, StoredFile

LEASE = 60
OUT, BAD = StoredFile("batches/x/output", 9, "a"), StoredFile("batches/x/error", 3, "b")


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/batches.sqlite"
    else:
        server: Postgres = request.getfixturevalue("postgresql")
        url = server.database()
    found = Bench(url)
    yield found
    found.close()


def taken(take: Callable[[], Lease | None]) -> Lease:
    lease = take()
    assert lease is not None
    return lease


def test_what_has_ended_is_swept_once_and_keeps_its_files(bench: Bench) -> None:
    name = bench.begun()
    assert bench.one.upkeep.find_unswept() == []
    bench.run(2)
    bench.one.conclude(taken(bench.one.take_batch), OUT, BAD, 500)
    ((ended, keys),) = bench.one.upkeep.find_unswept()
    assert (ended, set(keys)) == (name, {OUT.key, BAD.key})
    bench.one.upkeep.mark_swept(name)
    assert bench.one.upkeep.find_unswept() == []
    assert bench.one.chunks(name) == []
    assert bench.store.get_batch(name).request_counts.completed == 4


def test_a_batch_without_files_is_swept_too(bench: Bench) -> None:
    name = bench.store.create_batch(bench.request()).id
    bench.one.reject(taken(bench.one.take_batch), BatchErrors())
    assert bench.one.upkeep.find_unswept() == [(name, [])]


def test_files_go_when_their_time_is_over_and_nobody_reads_them(bench: Bench) -> None:
    day = 86400
    bench.file("uploads/idle")
    bench.begun(window="9999h")
    assert bench.one.upkeep.delete_overdue_files() == []
    bench.clock.now += 30 * day
    assert bench.one.upkeep.delete_overdue_files() == ["uploads/idle"]
    assert bench.one.upkeep.delete_overdue_files() == []
    assert len(bench.store.list_files(9).data) == 1


def test_the_census_counts_states_and_the_age_of_what_waits(bench: Bench) -> None:
    assert bench.one.upkeep.count_batches() == ({}, 0.0)
    bench.begun()
    bench.store.create_batch(bench.request())
    bench.clock.now += 7
    bench.store.create_batch(bench.request())
    assert bench.one.upkeep.count_batches() == ({"in_progress": 1, "validating": 2}, 7.0)
