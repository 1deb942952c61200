"""Waiting for a batch and reading pages, without a network."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from client.script import LOST, Answer, Clock, play, refusal, response
from hypothesis import given
from hypothesis import strategies as st

from tureen import ConnectionFailed, DeadlineExceeded, InvalidRequest, NotFound, Retries, Unavailable
from tureen.batches.batch_flows import OUTAGE, BatchCalls, FileCalls, build_path, describe_progress
from tureen.calls.request_flows import Calls
from tureen.http_requests import HttpRequest
from tureen.wire import Batch

ONCE = Retries(limit=0)


def batches(clock: Clock, **patience: Any) -> BatchCalls:
    return BatchCalls(Calls(clock=clock, dice=lambda: 0.0, **patience))


def batch(status: str, done: int = 0) -> httpx2.Response:
    counts = {"total": 8, "completed": done, "failed": 0}
    told = {"id": "b", "endpoint": "/v1/score", "input_file_id": "f", "completion_window": "24h", "created_at": 1}
    return response(200, {**told, "status": status, "request_counts": counts})


GOING = batch("in_progress", 3)
DONE = batch("completed", 8)


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_what_has_ended_is_looked_at_once(status: str) -> None:
    clock = Clock()
    ended, sent = play(batches(clock, timeout=7.0).wait("b", None, 10.0, None), [batch(status)], clock)
    assert ended.status == status
    assert sent == [HttpRequest("GET", "/v1/batches/b", timeout=7.0)]


def test_looks_become_rarer_up_to_the_longest_pause() -> None:
    clock = Clock()
    flow = batches(clock).wait("b", None, 4.0, None)
    _, sent = play(flow, [batch("validating"), *[GOING] * 7, batch("finalizing"), batch("cancelling"), DONE], clock)
    assert [round(send.delay, 3) for send in sent] == [0, 0.5, 0.75, 1.125, 1.688, 2.531, 3.797, 4, 4, 4, 4]


@given(dice=st.floats(0, 1, exclude_max=True), longest=st.floats(0.01, 60))
def test_pauses_are_shortened_by_a_quarter_at_most(dice: float, longest: float) -> None:
    clock = Clock()
    flow = BatchCalls(Calls(clock=clock, dice=lambda: dice)).wait("b", None, longest, None)
    _, sent = play(flow, [*[GOING] * 15, DONE], clock)
    assert min(0.5, longest) * 0.75 <= sent[1].delay <= min(0.5, longest)
    assert max(send.delay for send in sent) <= longest


def test_every_look_is_told_of() -> None:
    clock, seen = Clock(), list[Batch]()
    play(batches(clock).wait("b", seen.append, 10.0, None), [GOING, refusal(503), GOING, DONE], clock)
    assert [each.status for each in seen] == ["in_progress", "in_progress", "completed"]


@given(deadline=st.floats(0.01, 100), takes=st.floats(0, 3))
def test_no_look_is_begun_after_the_deadline(deadline: float, takes: float) -> None:
    clock = Clock()
    begun: list[float] = []

    def answer(send: HttpRequest) -> httpx2.Response:
        begun.append(clock.now - takes)
        return GOING

    with pytest.raises(DeadlineExceeded):
        play(batches(clock).wait("b", None, 10.0, deadline), [answer] * 500, clock, takes)
    assert begun[-1] <= 1000.0 + deadline + 1e-6


def test_the_first_look_must_be_answered() -> None:
    clock = Clock()
    with pytest.raises(ConnectionFailed):
        play(batches(clock, retries=ONCE).wait("b", None, 10.0, None), [LOST], clock)


@pytest.mark.parametrize("away", [LOST, refusal(503), refusal(500)])
def test_a_server_that_is_away_is_waited_for_so_long(away: Answer) -> None:
    clock = Clock()
    answers: list[Answer] = [GOING, *[away] * 40, GOING, *[away] * 40, DONE]
    ended, _ = play(batches(clock, retries=ONCE).wait("b", None, 1.0, None), answers, clock)
    assert ended.status == "completed"
    with pytest.raises((ConnectionFailed, Unavailable, Exception), match=r"no server answers|no"):
        play(batches(clock, retries=ONCE).wait("b", None, 1.0, None), [GOING, *[away] * 1000], clock)
    assert clock.now > 1000 + OUTAGE
    clock.now = 1000.0
    with pytest.raises(Exception, match=r"no server answers|no"):
        play(batches(clock, retries=ONCE).wait("b", None, 1.0, None, outage=20.0), [GOING, *[away] * 1000], clock)
    assert 1020.0 < clock.now < 1030.0


def test_an_outage_does_not_outlast_the_deadline() -> None:
    clock = Clock()
    with pytest.raises((ConnectionFailed, DeadlineExceeded)):
        play(batches(clock).wait("b", None, 1.0, 20.0), [GOING, *[LOST] * 1000], clock)
    assert clock.now <= 1020.0


def test_what_is_gone_is_not_waited_for() -> None:
    clock = Clock()
    with pytest.raises(NotFound):
        play(batches(clock).wait("b", None, 1.0, None), [GOING, refusal(404)], clock)


def page(count: int, total: int) -> Callable[[HttpRequest], httpx2.Response]:
    """Answers as a server with ``total`` files and pages of ``count``."""

    def answer(send: HttpRequest) -> httpx2.Response:
        query = httpx2.URL(send.path).params
        first = int(query["after"]) + 1 if "after" in query else 0
        last = min(first + min(count, int(query["limit"])), total)
        kept = [
            {"id": str(each), "bytes": 0, "created_at": 1, "filename": "f", "purpose": "batch"} for each in range(total)
        ]
        return response(200, {"data": kept[first:last], "has_more": last < total})

    return answer


@given(total=st.integers(0, 30), count=st.integers(1, 12), limit=st.none() | st.integers(1, 40))
def test_pages_are_read_to_the_end_or_the_limit(total: int, count: int, limit: int | None) -> None:
    clock = Clock()
    flow = FileCalls(Calls(clock=clock)).list_all(None, limit, None)
    found, sent = play(flow, [page(count, total)] * 40, clock)
    assert [file.id for file in found] == [str(each) for each in range(total)][:limit]
    assert len(sent) <= total // count + 1


def test_a_page_that_is_empty_and_promises_more_ends_it() -> None:
    clock = Clock()
    found, _ = play(
        BatchCalls(Calls(clock=clock)).list_all(None, None), [response(200, {"data": [], "has_more": True})], clock
    )
    assert found == []


def test_a_deadline_spans_all_pages() -> None:
    clock = Clock()
    with pytest.raises(DeadlineExceeded):
        play(FileCalls(Calls(clock=clock)).list_all(None, None, 5.0), [page(1, 9)] * 9, clock, takes=2.0)


def test_each_creation_has_its_own_key_and_its_tries_share_it() -> None:
    clock = Clock()
    calls = batches(clock)
    fields = {"input_file_id": "f", "endpoint": "/v1/score", "completion_window": "24h", "metadata": None}
    _, first = play(calls.create(fields), [LOST, refusal(503), GOING], clock)
    _, second = play(calls.create(fields), [GOING], clock)
    _, mine = play(calls.create({**fields, "idempotency_key": "mine"}), [GOING], clock)
    assert len({send.key for send in first}) == 1
    assert len({first[0].key, second[0].key, mine[0].key, None}) == 4
    assert mine[0].key == "mine"
    assert mine[0].headers()["idempotency-key"] == "mine"
    assert b"metadata" not in (mine[0].body or b"")


def test_where_things_are() -> None:
    assert build_path("/v1/files", "file-1") == "/v1/files/file-1"
    assert build_path("/v1/files", "../batches?a#b c") == "/v1/files/..%2Fbatches%3Fa%23b%20c"
    with pytest.raises(InvalidRequest, match="empty"):
        build_path("/v1/files", "")


def test_how_far_a_batch_is() -> None:
    assert describe_progress(Batch.model_validate_json(GOING.content)) == "b is in progress, 3 of 8 lines done"
