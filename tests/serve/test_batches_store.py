"""What callers ask of files and batches, over SQLite and a real PostgreSQL."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres import Postgres
from serve.stores import Bench

from tureen.errors import Conflict, NotFound, TureenError, Unprocessable
from tureen_serve.batches.records import StoredFile

DAY = 86400


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


def refusal(function: Any, *arguments: Any) -> TureenError:
    with pytest.raises(TureenError) as caught:
        function(*arguments)
    return caught.value


# --------------------------------------------------------------------------- files


def test_a_file_is_found_again(bench: Bench) -> None:
    made = bench.store.add_file(StoredFile("uploads/x", 7, "d" * 64), "in.jsonl")
    found, stored = bench.store.get_file(made.id)
    assert found == made
    assert stored == StoredFile("uploads/x", 7, "d" * 64)
    assert (made.bytes, made.filename, made.purpose, made.created_at) == (7, "in.jsonl", "batch", 1000)
    assert made.expires_at == 1000 + 30 * DAY


def test_a_file_says_itself_how_long_it_is_kept(bench: Bench) -> None:
    assert bench.store.add_file(StoredFile("uploads/x", 7, ""), "in.jsonl", seconds=3600).expires_at == 4600


def test_ids_are_long_and_never_the_same(bench: Bench) -> None:
    names = {bench.file() for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("file-") and len(name) == len("file-") + 32 for name in names)


def test_files_are_listed_in_pages_the_newest_first(bench: Bench) -> None:
    names = []
    for _ in range(5):
        bench.clock.now += 1
        names.append(bench.file())
    first = bench.store.list_files(2)
    assert ([each.id for each in first.data], first.has_more) == (names[:2:-1], True)
    assert (first.first_id, first.last_id) == (names[4], names[3])
    second = bench.store.list_files(2, after=first.last_id)
    third = bench.store.list_files(2, after=second.last_id)
    assert ([each.id for each in third.data], third.has_more) == ([names[0]], False)
    assert [each.id for each in bench.store.list_files(10, order="asc").data] == names
    assert [each.id for each in bench.store.list_files(2, after=names[1], order="asc").data] == names[2:4]


def test_files_of_one_moment_are_all_listed_once(bench: Bench) -> None:
    names = {bench.file() for _ in range(5)}
    found, after = [], None
    for _ in range(5):
        page = bench.store.list_files(1, after=after)
        found.append(page.data[0].id)
        after = page.last_id
    assert set(found) == names
    assert not page.has_more


def test_files_are_listed_by_purpose(bench: Bench) -> None:
    bench.file()
    made = bench.store.add_file(StoredFile("k", 1, ""), "out.jsonl", "batch_output")
    assert [each.id for each in bench.store.list_files(9, purpose="batch_output").data] == [made.id]


def test_a_list_after_nothing_is_refused(bench: Bench) -> None:
    assert refusal(bench.store.list_files, 1, "file-x").param == "after"
    assert bench.store.list_files(1).data == []


def test_a_file_is_forgotten_unless_a_batch_reads_it(bench: Bench) -> None:
    name = bench.file("uploads/y")
    assert bench.store.delete_file(name) == "uploads/y"
    assert refusal(bench.store.get_file, name).code == "file_not_found"
    batch = bench.store.create_batch(bench.request())
    error = refusal(bench.store.delete_file, batch.input_file_id)
    assert (error.status, error.code) == (409, "file_in_use")
    assert batch.id in error.message
    bench.store.cancel_batch(batch.id)
    lease = bench.one.take_batch()
    assert lease is not None
    bench.one.conclude(lease, None, None, 60)
    assert bench.store.delete_file(batch.input_file_id)


# --------------------------------------------------------------------------- batches


def test_a_new_batch_is_validating(bench: Bench) -> None:
    request = bench.request("90m", metadata={"job": "seven"})
    made = bench.store.create_batch(request)
    assert (made.status, made.endpoint, made.completion_window) == ("validating", "/v1/score", "90m")
    assert (made.created_at, made.expires_at) == (1000, 1000 + 90 * 60)
    assert made.metadata == {"job": "seven"}
    assert made.request_counts.total == 0
    assert (made.errors, made.in_progress_at, made.output_file_id) == (None, None, None)
    assert bench.store.get_batch(made.id) == made
    assert len(made.id) == len("batch_") + 32


def test_a_batch_needs_a_file_that_was_uploaded_for_it(bench: Bench) -> None:
    request = bench.request()
    missing = refusal(bench.store.create_batch, request.model_copy(update={"input_file_id": "file-x"}))
    assert (missing.status, missing.param) == (404, "input_file_id")
    output = bench.store.add_file(StoredFile("k", 1, ""), "out.jsonl", "batch_output").id
    other = refusal(bench.store.create_batch, request.model_copy(update={"input_file_id": output}))
    assert (other.status, other.param) == (422, "input_file_id")
    assert bench.store.list_batches(9).data == []


def test_a_file_past_its_time_starts_no_batch(bench: Bench) -> None:
    request = bench.request()
    bench.clock.now += 31 * DAY
    assert refusal(bench.store.create_batch, request).status == 404


def test_batches_are_listed_the_newest_first(bench: Bench) -> None:
    names = []
    for _ in range(3):
        bench.clock.now += 1
        names.append(bench.store.create_batch(bench.request()).id)
    page = bench.store.list_batches(2)
    assert ([each.id for each in page.data], page.has_more) == ([names[2], names[1]], True)
    assert [each.id for each in bench.store.list_batches(2, after=page.last_id).data] == [names[0]]


def test_an_unknown_batch_is_not_found(bench: Bench) -> None:
    for function in (bench.store.get_batch, bench.store.cancel_batch):
        assert isinstance(refusal(function, "batch_x"), NotFound)


# --------------------------------------------------------------------------- cancelling


def test_what_is_cancelled_is_begun_no_more(bench: Bench) -> None:
    name = bench.begun()
    running = bench.one.take_chunk()
    assert running is not None
    bench.clock.now += 5
    cancelled = bench.store.cancel_batch(name)
    assert (cancelled.status, cancelled.cancelling_at) == ("cancelling", 1005)
    assert bench.other.take_chunk() is None
    assert bench.store.cancel_batch(name).cancelling_at == 1005


def test_a_batch_is_cancelled_before_it_is_validated(bench: Bench) -> None:
    name = bench.store.create_batch(bench.request()).id
    assert bench.store.cancel_batch(name).status == "cancelling"


def test_what_has_ended_is_not_cancelled(bench: Bench) -> None:
    name = bench.begun()
    bench.run(2)
    error = refusal(bench.store.cancel_batch, name)
    assert isinstance(error, Conflict)
    assert (error.code, "finalizing" in error.message) == ("batch_not_cancellable", True)
    lease = bench.one.take_batch()
    assert lease is not None
    bench.one.conclude(lease, None, None, 60)
    assert refusal(bench.store.cancel_batch, name).status == 409


# --------------------------------------------------------------------------- idempotency


def test_the_same_request_gets_the_same_batch(bench: Bench) -> None:
    assert bench.store.claim_key("key", "print") is None
    made = bench.store.create_batch(bench.request(), "key")
    assert bench.store.claim_key("key", "print") == made
    bench.store.cancel_batch(made.id)
    again = bench.store.claim_key("key", "print")
    assert again is not None
    assert (again.id, again.status) == (made.id, "cancelling")


def test_another_request_under_the_key_is_refused(bench: Bench) -> None:
    bench.store.claim_key("key", "print")
    bench.store.create_batch(bench.request(), "key")
    error = refusal(bench.store.claim_key, "key", "other")
    assert isinstance(error, Unprocessable)
    assert (error.param, error.code) == ("Idempotency-Key", "idempotency_key_reused")
    assert bench.store.claim_key("another key", "other") is None


def test_the_same_request_in_flight_is_told_to_wait(bench: Bench) -> None:
    bench.store.claim_key("key", "print")
    error = refusal(bench.store.claim_key, "key", "print")
    assert (error.status, error.code, error.retry_after) == (409, "idempotency_in_flight", 1)


def test_a_request_that_made_nothing_may_be_sent_again(bench: Bench) -> None:
    bench.store.claim_key("key", "print")
    bench.store.release_key("key")
    assert bench.store.claim_key("key", "other") is None
    bench.store.create_batch(bench.request(), "key")
    bench.store.release_key("key")
    assert bench.store.claim_key("key", "other") is not None


def test_a_claim_whose_server_died_is_free_after_a_minute(bench: Bench) -> None:
    bench.store.claim_key("key", "print")
    bench.clock.now += 59
    assert refusal(bench.store.claim_key, "key", "print").status == 409
    bench.clock.now += 2
    assert bench.store.claim_key("key", "print") is None


def test_a_key_is_kept_for_a_day(bench: Bench) -> None:
    bench.store.claim_key("key", "print")
    bench.store.create_batch(bench.request(), "key")
    bench.clock.now += DAY - 1
    assert bench.store.claim_key("key", "print") is not None
    bench.clock.now += 2
    assert bench.store.claim_key("key", "print") is None


def test_of_many_that_come_at_once_one_makes_the_batch(bench: Bench) -> None:
    barrier = threading.Barrier(6)
    found: list[Any] = []

    def come() -> None:
        barrier.wait(10)
        try:
            found.append(bench.store.claim_key("key", "print"))
        except Conflict as error:
            found.append(error.code)

    threads = [threading.Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == sorted(["None", *["idempotency_in_flight"] * 5])
