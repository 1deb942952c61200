"""What is sent, when, and what is made of it, without a network."""

import json
from typing import Any

import httpx2
import pytest
from client.script import LOST, Answer, Clock, play, refusal, response
from hypothesis import given
from hypothesis import strategies as st

from tureen import (
    Chunks,
    ConnectionFailed,
    DeadlineExceeded,
    NotFound,
    Retries,
    ServerFault,
    Unavailable,
    Unprocessable,
)
from tureen.calls.request_flows import Calls, make_messages
from tureen.calls.stream_events import Events
from tureen.http_requests import HttpRequest
from tureen.openai_wire import ChatChunk
from tureen.retry import Deadline

MODELS = response(200, {"data": []})
ITEM = {"prompt": "Why?", "candidates": ["Because."]}


def calls(clock: Clock, **patience: Any) -> Calls:
    return Calls(clock=clock, dice=lambda: 0.0, **patience)


def scored(send: HttpRequest) -> httpx2.Response:
    """A row for each item that was sent."""
    rows = [{"index": index, "candidates": []} for index in range(len(json.loads(send.body or b"")["items"]))]
    return response(200, {"fingerprint": {"a": "f"}, "data": rows, "usage": {"prompt_tokens": len(rows)}})


def test_one_success_is_one_request() -> None:
    clock = Clock()
    reply, sent = play(calls(clock, timeout=7.0).models(), [MODELS], clock)
    assert reply.data == []
    assert sent == [HttpRequest("GET", "/v1/models", None, delay=0.0, timeout=7.0)]


def test_waits_follow_the_schedule_and_the_servers_word() -> None:
    clock = Clock()
    answers: list[Answer] = [refusal(503), refusal(500), refusal(503, retry_after="7"), refusal(429), LOST, MODELS]
    _, sent = play(calls(clock).models(), answers, clock)
    assert [send.delay for send in sent] == [0.0, 0.5, 1.0, 7.0, 4.0, 8.0]
    assert clock.now == 1020.5


def test_an_outage_is_outlasted_and_every_wait_is_told_of() -> None:
    clock, told = Clock(), list[tuple[str, float]]()
    patient = calls(
        clock, retries=Retries(limit=1, outage=60.0), on_retry=lambda error, away: told.append((error.message, away))
    )
    play(patient.models(), [*[LOST] * 9, refusal(503, "loading"), MODELS], clock)
    assert told[0] == ("nothing answers", 0.0)
    assert [away for _, away in told] == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 23.5, 31.5, 39.5, 47.5]
    assert told[-1][0] == "loading"
    with pytest.raises(ConnectionFailed):
        play(patient.models(), [LOST] * 99, clock)
    assert told[-1][1] < 60.0


def test_a_proxys_408_is_tried_again_and_a_409_is_not() -> None:
    clock = Clock()
    play(calls(clock).models(), [refusal(408), MODELS], clock)
    with pytest.raises(Exception, match="another model"):
        play(calls(clock).models(), [refusal(409, "another model"), MODELS], clock)


@given(
    deadline=st.floats(0.01, 60),
    takes=st.floats(0, 10),
    asked=st.lists(st.one_of(st.none(), st.floats(0.001, 130)), min_size=6, max_size=6),
)
def test_no_try_is_begun_after_the_deadline(deadline: float, takes: float, asked: list[float | None]) -> None:
    clock = Clock()
    begun: list[float] = []

    def answer(wish: float | None) -> Answer:
        def told(send: HttpRequest) -> httpx2.Response:
            begun.append(clock.now - takes)
            assert send.timeout > 0
            assert begun[-1] + send.timeout <= 1000.0 + deadline + 0.002
            return refusal(503) if wish is None else refusal(503, retry_after=str(wish))

        return told

    flow = calls(clock).chat("Hello", {"deadline": deadline})
    with pytest.raises((Unavailable, DeadlineExceeded)):
        play(flow, [answer(wish) for wish in asked], clock, takes)
    assert all(moment <= 1000.0 + deadline + 1e-6 for moment in begun)


def test_silence_until_the_deadline_is_a_deadline_exceeded_because_of_the_silence() -> None:
    clock = Clock()
    with pytest.raises(DeadlineExceeded) as caught:
        play(calls(clock).chat("Hello", {"deadline": 2.0}), [LOST], clock, takes=2.0)
    assert caught.value.__cause__ is LOST


def test_a_deadline_spans_all_requests_of_a_call() -> None:
    clock = Clock()
    flow = calls(clock, chunks=Chunks(items=1)).score([ITEM] * 3, {"deadline": 5.0})
    with pytest.raises(DeadlineExceeded):
        play(flow, [scored] * 3, clock, takes=2.5)


def test_a_request_that_cannot_be_built_sends_nothing() -> None:
    clock = Clock()
    for flow in (
        calls(clock).score([ITEM], {"rewads": ["a"]}),
        calls(clock).score([], {}),
        calls(clock).chat("Hello", {"temperature": 3}),
        calls(clock).sweep("Hello", [], {}),
        calls(clock).complete_stream("", {"n": 0}),
    ):
        with pytest.raises(Unprocessable):
            play(flow, [], clock)


def test_bad_items_are_found_before_the_first_request() -> None:
    clock = Clock()
    flow = calls(clock, chunks=Chunks(items=1)).preferences([ITEM, ITEM, {"prompt": "Why?"}], {})
    with pytest.raises(Unprocessable) as caught:
        play(flow, [], clock)
    assert caught.value.param == "items[2]"


@given(count=st.integers(1, 40), most=st.integers(1, 12))
def test_every_item_is_sent_once_and_in_order(count: int, most: int) -> None:
    clock = Clock()
    items = [{"prompt": str(number), "candidates": ["a"]} for number in range(count)]
    reply, sent = play(calls(clock, chunks=Chunks(items=most)).score(items, {}), [scored] * count, clock)
    bodies = [json.loads(send.body or b"")["items"] for send in sent]
    assert [item for body in bodies for item in body] == items
    assert max(map(len, bodies)) <= most
    assert [row.index for row in reply.data] == list(range(count))
    assert reply.usage.prompt_tokens == count


def test_a_stream_asks_for_one_and_is_left_unread() -> None:
    clock = Clock()
    opened, sent = play(calls(clock).chat_stream("Hello", {}), [MODELS], clock)
    assert opened.response is MODELS
    assert (sent[0].stream, json.loads(sent[0].body or b"")["stream"]) == (True, True)


def test_readiness_is_asked_once_and_its_reason_told() -> None:
    clock = Clock()
    reason, sent = play(calls(clock).ready(), [refusal(503, "loading")], clock)
    assert (str(reason), len(sent), sent[0].timeout) == ("loading", 1, 5.0)
    assert play(calls(clock).ready(), [MODELS], clock)[0] is None
    with pytest.raises(NotFound):
        play(calls(clock).ready(), [refusal(404)], clock)


@given(timeout=st.floats(0, 30), poll=st.floats(0.05, 5))
def test_waiting_for_readiness_ends_within_its_time(timeout: float, poll: float) -> None:
    clock = Clock()
    with pytest.raises(DeadlineExceeded, match="loading"):
        play(calls(clock, poll=poll).wait_until_ready(timeout), [refusal(503, "loading")] * 1000, clock)
    assert 1000.0 <= clock.now <= 1000.0 + timeout + 1e-6


def test_waiting_for_readiness_outlasts_a_server_that_is_not_there_yet() -> None:
    clock = Clock()
    _, sent = play(calls(clock).wait_until_ready(10), [LOST, refusal(503), MODELS], clock)
    assert [send.delay for send in sent] == [0.0, 0.5, 0.5]


def test_events_are_read_until_their_end_mark() -> None:
    events = Events(ChatChunk, Deadline(None))
    chunk = events.read('{"choices": [{"delta": {"content": "Hi"}}]}')
    assert chunk is not None
    assert chunk.text == "Hi"
    with pytest.raises(ConnectionFailed):
        events.finish()
    assert events.read("[DONE]") is None
    events.finish()


def test_an_event_may_carry_an_error_and_a_stream_may_last_too_long() -> None:
    clock = Clock()
    events = Events(ChatChunk, Deadline(3.0, clock))
    with pytest.raises(Unavailable, match="dead"):
        events.read('{"error": {"message": "dead", "type": "overloaded_error", "code": "engine_dead"}}')
    with pytest.raises(ServerFault, match="ChatChunk"):
        events.read("{}")
    clock.now += 3.0
    with pytest.raises(DeadlineExceeded):
        events.read("[DONE]")


def test_a_text_is_what_the_user_says() -> None:
    assert make_messages("Hi") == [{"role": "user", "content": "Hi"}]
    assert make_messages([{"role": "system", "content": "Be brief."}]) == [{"role": "system", "content": "Be brief."}]


def test_patience_is_the_clients_own() -> None:
    clock = Clock()
    with pytest.raises(Unavailable):
        play(calls(clock, retries=Retries(limit=0)).models(), [refusal(503)], clock)
