"""Work, leased: nobody does the same at once, and what is done late counts not, over SQLite and a real PostgreSQL."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgres import Postgres
from serve.stores import Bench

from tureen.wire import BatchError, BatchErrors
from tureen_serve.batches.leases import LeaseLost, Leases
from tureen_serve.batches.records import Lease, LineRange, StoredFile, Tally

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


def number(lease: Lease) -> int:
    assert lease.chunk is not None
    return lease.chunk.number


# --------------------------------------------------------------------------- validating


def test_a_new_batch_is_taken_once(bench: Bench) -> None:
    name = bench.store.create_batch(bench.request()).id
    lease = taken(bench.one.take_batch)
    assert (lease.batch_id, lease.status, lease.endpoint, lease.fence) == (name, "validating", "/v1/score", 1)
    assert lease.input.key == "uploads/a"
    assert bench.other.take_batch() is None


def test_a_valid_batch_is_in_progress_and_its_chunks_wait(bench: Bench) -> None:
    bench.clock.now += 3
    name = bench.begun([LineRange(1, 64, 0, 900), LineRange(65, 10, 900, 100)])
    batch = bench.store.get_batch(name)
    assert (batch.status, batch.request_counts.total, batch.in_progress_at) == ("in_progress", 74, 1003)
    assert [chunk.piece for chunk in bench.one.chunks(name)] == [LineRange(1, 64, 0, 900), LineRange(65, 10, 900, 100)]
    assert bench.one.take_batch() is None


def test_a_batch_that_is_not_valid_has_failed(bench: Bench) -> None:
    name = bench.store.create_batch(bench.request()).id
    bench.one.reject(taken(bench.one.take_batch), BatchErrors(data=[BatchError(line=3, message="no", code="bad")]))
    batch = bench.store.get_batch(name)
    assert (batch.status, batch.failed_at) == ("failed", 1000)
    assert batch.errors is not None
    assert (batch.errors.data[0].line, batch.errors.data[0].message) == (3, "no")
    assert bench.one.take_batch() is None


def test_a_batch_that_is_cancelled_while_it_is_validated_is_not_begun(bench: Bench) -> None:
    name = bench.store.create_batch(bench.request()).id
    lease = taken(bench.one.take_batch)
    bench.store.cancel_batch(name)
    with pytest.raises(LeaseLost):
        bench.one.begin(lease, [LineRange(1, 1, 0, 1)])
    with pytest.raises(LeaseLost):
        bench.one.reject(lease, BatchErrors())
    assert bench.store.get_batch(name).status == "cancelling"
    assert bench.one.chunks(name) == []


def test_a_worker_that_died_while_validating_is_followed_by_another(bench: Bench) -> None:
    name = bench.store.create_batch(bench.request()).id
    dead = taken(bench.one.take_batch)
    bench.clock.now += LEASE
    heir = taken(bench.other.take_batch)
    assert (heir.batch_id, heir.fence) == (name, dead.fence + 1)
    with pytest.raises(LeaseLost):
        bench.one.begin(dead, [LineRange(1, 1, 0, 1)])
    bench.other.begin(heir, [LineRange(1, 2, 0, 5)])
    assert bench.store.get_batch(name).request_counts.total == 2


# --------------------------------------------------------------------------- chunks


def test_two_workers_never_have_the_same_chunk(bench: Bench) -> None:
    bench.begun([LineRange(n + 1, 1, n, 1) for n in range(6)])
    taken_by = [number(taken(take)) for take in [bench.one.take_chunk, bench.other.take_chunk] * 3]
    assert taken_by == [0, 1, 2, 3, 4, 5]
    assert bench.one.take_chunk() is None


def test_nor_do_many_that_ask_at_once(bench: Bench) -> None:
    bench.begun([LineRange(n + 1, 1, n, 1) for n in range(12)])
    barrier, found = threading.Barrier(4), list[int]()

    def work(leases: Leases) -> None:
        barrier.wait(10)
        while lease := leases.take_chunk():
            found.append(number(lease))
            leases.commit(lease, f"key{number(lease)}", Tally(1))

    threads = [threading.Thread(target=work, args=(Leases(bench.database, LEASE),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(12))
    batch = bench.store.list_batches(1).data[0]
    assert (batch.status, batch.request_counts.completed) == ("finalizing", 12)


def test_the_batch_that_has_come_the_least_far_goes_first(bench: Bench) -> None:
    large = bench.begun([LineRange(n + 1, 1, n, 1) for n in range(4)])
    bench.run(2)
    bench.clock.now += 1
    small = bench.begun([LineRange(1, 1, 0, 1), LineRange(2, 1, 1, 1)])
    order = [taken(bench.one.take_chunk) for _ in range(4)]
    assert [(each.batch_id, number(each)) for each in order] == [(small, 0), (small, 1), (large, 2), (large, 3)]


def test_a_committed_chunk_counts_at_once(bench: Bench) -> None:
    name = bench.begun()
    lease = taken(bench.one.take_chunk)
    bench.one.commit(lease, "batches/x/0", Tally(completed=1, failed=1, input_tokens=7, output_tokens=3))
    batch = bench.store.get_batch(name)
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("in_progress", 1, 1)
    assert batch.usage is not None
    assert (batch.usage.input_tokens, batch.usage.output_tokens, batch.usage.total_tokens) == (7, 3, 10)
    assert [chunk.key for chunk in bench.one.chunks(name)] == ["batches/x/0", None]


def test_the_same_result_counts_once(bench: Bench) -> None:
    name = bench.begun()
    lease = taken(bench.one.take_chunk)
    bench.one.commit(lease, "first", Tally(2))
    with pytest.raises(LeaseLost):
        bench.one.commit(lease, "second", Tally(2))
    assert bench.store.get_batch(name).request_counts.completed == 2
    assert bench.one.chunks(name)[0].key == "first"


def test_a_stale_worker_cannot_commit(bench: Bench) -> None:
    name = bench.begun([LineRange(1, 2, 0, 20)])
    slow = taken(bench.one.take_chunk)
    bench.clock.now += LEASE
    quick = taken(bench.other.take_chunk)
    assert (number(quick), quick.fence) == (number(slow), slow.fence + 1)
    with pytest.raises(LeaseLost):
        bench.one.commit(slow, "slow", Tally(2))
    with pytest.raises(LeaseLost):
        bench.one.extend(slow)
    bench.one.release(slow)
    bench.other.commit(quick, "quick", Tally(2))
    with pytest.raises(LeaseLost):
        bench.one.commit(slow, "slow", Tally(2))
    assert bench.store.get_batch(name).request_counts.completed == 2
    assert bench.one.chunks(name)[0].key == "quick"


def test_a_late_worker_that_nobody_followed_may_commit(bench: Bench) -> None:
    name = bench.begun()
    lease = taken(bench.one.take_chunk)
    bench.clock.now += 10 * LEASE
    bench.one.commit(lease, "late", Tally(2))
    assert bench.store.get_batch(name).request_counts.completed == 2


def test_a_lease_holds_as_long_as_it_is_extended(bench: Bench) -> None:
    bench.begun([LineRange(1, 1, 0, 1)])
    lease = taken(bench.one.take_chunk)
    for _ in range(5):
        bench.clock.now += LEASE - 1
        assert bench.other.take_chunk() is None
        bench.one.extend(lease)
    bench.clock.now += LEASE
    assert taken(bench.other.take_chunk).chunk is not None


def test_deaths_are_counted_and_releases_are_not(bench: Bench) -> None:
    bench.begun([LineRange(1, 1, 0, 1)])
    for _ in range(3):
        bench.one.release(taken(bench.one.take_chunk))
    lease = taken(bench.one.take_chunk)
    assert lease.chunk is not None
    assert (lease.chunk.deaths, lease.chunk.refusals) == (0, 0)
    for deaths in (1, 2):
        bench.clock.now += LEASE
        lease = taken(bench.one.take_chunk)
        assert lease.chunk is not None
        assert lease.chunk.deaths == deaths


def test_a_chunk_at_which_a_worker_died_holds_up_no_others(bench: Bench) -> None:
    bench.begun([LineRange(n + 1, 1, n, 1) for n in range(3)])
    assert number(taken(bench.one.take_chunk)) == 0
    bench.clock.now += LEASE
    order = []
    for _ in range(3):
        lease = taken(bench.other.take_chunk)
        order.append(number(lease))
        bench.other.commit(lease, f"key{number(lease)}", Tally(1))
    assert order == [1, 2, 0]


def test_a_chunk_that_was_refused_waits_its_time(bench: Bench) -> None:
    bench.begun([LineRange(1, 1, 0, 1)])
    bench.one.release(taken(bench.one.take_chunk), wait=8, refused=True)
    assert bench.one.take_chunk() is None
    bench.clock.now += 8
    lease = taken(bench.one.take_chunk)
    assert lease.chunk is not None
    assert lease.chunk.refusals == 1


def test_the_last_chunk_ends_the_work(bench: Bench) -> None:
    name = bench.begun()
    bench.clock.now += 4
    bench.run(2)
    batch = bench.store.get_batch(name)
    assert (batch.status, batch.finalizing_at) == ("finalizing", 1004)
    lease = taken(bench.one.take_batch)
    assert (lease.status, lease.outcome) == ("finalizing", "completed")


# --------------------------------------------------------------------------- finishing


def test_a_finished_batch_has_its_files(bench: Bench) -> None:
    name = bench.begun()
    bench.run(2)
    bench.clock.now += 90
    assert bench.one.conclude(taken(bench.one.take_batch), OUT, BAD, 500) == 90
    batch = bench.store.get_batch(name)
    assert (batch.status, batch.completed_at) == ("completed", 1090)
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    output, stored = bench.store.get_file(batch.output_file_id)
    assert stored == OUT
    assert (output.purpose, output.filename, output.expires_at) == ("batch_output", f"{name}_output.jsonl", 1590)
    assert bench.store.get_file(batch.error_file_id)[1] == BAD
    assert bench.one.take_batch() is None


def test_outputs_go_when_the_batch_says(bench: Bench) -> None:
    told = bench.request(output_expires_after={"anchor": "created_at", "seconds": 7200})
    name = bench.store.create_batch(told).id
    bench.one.begin(taken(bench.one.take_batch), [LineRange(1, 1, 0, 1)])
    bench.run(1)
    bench.one.conclude(taken(bench.one.take_batch), OUT, None, 500)
    batch = bench.store.get_batch(name)
    assert batch.output_file_id is not None
    assert batch.error_file_id is None
    assert bench.store.get_file(batch.output_file_id)[0].expires_at == 1000 + 7200


def test_a_stale_worker_cannot_end_a_batch(bench: Bench) -> None:
    name = bench.begun()
    bench.run(2)
    slow = taken(bench.one.take_batch)
    bench.clock.now += LEASE
    quick = taken(bench.other.take_batch)
    with pytest.raises(LeaseLost):
        bench.one.conclude(slow, BAD, None, 500)
    bench.other.conclude(quick, OUT, None, 500)
    with pytest.raises(LeaseLost):
        bench.one.conclude(slow, BAD, None, 500)
    assert [each.filename for each in bench.store.list_files(9, purpose="batch_output").data] == [
        f"{name}_output.jsonl"
    ]


def test_what_is_cancelled_keeps_what_is_finished(bench: Bench) -> None:
    name = bench.begun([LineRange(1, 2, 0, 4), LineRange(3, 2, 4, 4), LineRange(5, 3, 8, 4)])
    bench.run(1)
    running = taken(bench.one.take_chunk)
    bench.store.cancel_batch(name)
    with pytest.raises(LeaseLost):
        bench.one.extend(running)
    with pytest.raises(LeaseLost):
        bench.one.commit(running, "late", Tally(2))
    lease = taken(bench.one.take_batch)
    assert (lease.status, lease.outcome) == ("cancelling", "cancelled")
    bench.clock.now += 1
    bench.one.conclude(lease, OUT, BAD, 500)
    batch = bench.store.get_batch(name)
    assert (batch.status, batch.cancelled_at) == ("cancelled", 1001)
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (7, 2, 5)


def test_what_has_expired_keeps_what_is_finished(bench: Bench) -> None:
    name = bench.begun([LineRange(1, 2, 0, 4), LineRange(3, 2, 4, 4)], window="10m")
    bench.run(1)
    bench.clock.now += 599
    assert bench.one.upkeep.expire_batches() == 0
    running = taken(bench.one.take_chunk)
    bench.clock.now += 1
    assert bench.one.upkeep.expire_batches() == 1
    assert bench.one.upkeep.expire_batches() == 0
    with pytest.raises(LeaseLost):
        bench.one.commit(running, "late", Tally(2))
    assert bench.store.get_batch(name).status == "finalizing"
    bench.one.conclude(taken(bench.one.take_batch), OUT, BAD, 500)
    batch = bench.store.get_batch(name)
    assert (batch.status, batch.expired_at) == ("expired", 1600)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 2)


def test_nothing_is_taken_of_a_batch_whose_time_is_over(bench: Bench) -> None:
    bench.begun(window="1m")
    bench.clock.now += 60
    assert bench.one.take_chunk() is None


def test_a_batch_that_was_never_looked_at_expires_too(bench: Bench) -> None:
    name = bench.store.create_batch(bench.request("1m")).id
    bench.clock.now += 61
    bench.one.upkeep.expire_batches()
    bench.one.conclude(taken(bench.one.take_batch), None, None, 500)
    batch = bench.store.get_batch(name)
    assert (batch.status, batch.request_counts.total, batch.output_file_id) == ("expired", 0, None)
