"""The door: permits, body limits, hang-ups and deadlines, by bare messages so that the caller can leave."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest
from serve.border import Caller, running, served
from serve.counting import CountingEngine
from serve.route_bodies import SCORING, WRITING
from waiting import let_others_run, pass_time, run_on_clock, wait_until

from tureen.errors import DeadlineExceeded, InvalidRequest, PayloadTooLarge, Unavailable
from tureen.wire import TIMEOUT_HEADER
from tureen_serve.admission import Admission, Exchange, read_deadline
from tureen_serve.body_sizes import BodyMemory, check_length
from tureen_serve.settings import ServerLimits

SCORE = {"items": [{"prompt": "hi", "candidates": ["calm"]}]}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "preferences": {"calm": 1}}


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def held() -> CountingEngine:
    """An engine that answers nothing until its gate is opened."""
    engine = CountingEngine()
    engine.gate.clear()
    return engine


@pytest.mark.parametrize(("header", "seconds"), [(None, 5.0), ("1500", 1.5), ("1", 0.001), ("999999", 20.0)])
def test_a_request_may_take_what_it_says_up_to_a_cap(header: str | None, seconds: float) -> None:
    limits = ServerLimits(deadline_seconds=5, longest_deadline_seconds=20)
    assert read_deadline({} if header is None else {TIMEOUT_HEADER: header}, limits) == seconds


@pytest.mark.parametrize("header", ["", "0", "-5", "1.5", "1e3", "soon", "٣", "9" * 13])
def test_a_deadline_that_is_no_number_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_deadline({TIMEOUT_HEADER: header}, ServerLimits())
    assert caught.value.param == TIMEOUT_HEADER


def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    check_length({"content-length": "10"}, 10)
    check_length({}, 10)
    with pytest.raises(PayloadTooLarge, match="10 bytes"):
        check_length({"content-length": "11"}, 10)


def test_a_body_in_parts_is_counted_as_it_comes() -> None:
    async def work() -> None:
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        for part in (b"123", b"456", b"789"):
            inbox.put_nowait({"type": "http.request", "body": part, "more_body": True})

        async def send(message: Any) -> None:
            raise AssertionError

        exchange = Exchange(inbox.get, send, BodyMemory(100))
        with pytest.raises(PayloadTooLarge):
            await exchange.read(8)
        assert inbox.empty()

    run(work())


def test_over_http_a_large_body_is_a_413_in_the_error_object() -> None:
    with served(limits={"body_bytes": 100}) as client:
        reply = client.post("/v1/score", json=SCORE | {"padding": "x" * 100})
        assert client.post("/v1/score", json=SCORE).status_code == 200
    assert reply.status_code == 413
    assert reply.json()["error"]["code"] == "payload_too_large"


def test_requests_over_the_limit_are_refused_with_a_time_to_return() -> None:
    async def work() -> None:
        engine = held()
        async with running(engine, limits={"in_flight": 2}) as app:
            first, second = Caller(app, "/v1/score", SCORE), Caller(app, "/v1/score", SCORE)
            await wait_until(lambda: engine.running == 2)
            third = await Caller(app, "/v1/score", SCORE).done()
            assert third.status == 503
            assert third.error["code"] == "queue_full"
            assert third.headers["retry-after"].isdigit()
            engine.gate.set()
            assert [(await each.done()).status for each in (first, second)] == [200, 200]
            assert (await Caller(app, "/v1/score", SCORE).done()).status == 200

    run(work())


def test_bodies_share_their_memory_and_give_it_back() -> None:
    body = json.dumps({"items": [{"prompt": "x" * 700_000, "candidates": ["calm"]}]}).encode()

    async def work() -> None:
        engine = held()
        async with running(engine, limits={"bodies_mib": 1}) as app:
            first = Caller(app, "/v1/score", body)
            await wait_until(lambda: engine.running == 1)
            second = await Caller(app, "/v1/score", body).done()
            assert (second.status, second.error["code"]) == (503, "queue_full")
            assert "limits.bodies_mib" in second.error["message"]
            assert second.headers["retry-after"].isdigit()
            third = Caller(app, "/v1/score", SCORE)  # a small one has room
            await wait_until(lambda: engine.running == 2)
            first.hang_up()
            await first.done()
            fourth = Caller(app, "/v1/score", body)
            await wait_until(lambda: engine.running == 2)
            engine.gate.set()
            assert (await third.done()).status == 200
            assert (await fourth.done()).status != 503

    run(work())


def test_health_and_metrics_pass_a_full_server() -> None:
    async def work() -> None:
        engine = held()
        async with running(engine, limits={"in_flight": 1}) as app:
            first = Caller(app, "/v1/score", SCORE)
            await wait_until(lambda: engine.running == 1)
            for path in ("/health/live", "/health/ready", "/health", "/metrics"):
                assert (await Caller(app, path).done()).status == 200, path
            assert (await Caller(app, "/v1/models").done()).status == 503
            engine.gate.set()
            await first.done()

    run(work())


@pytest.mark.parametrize(("path", "body"), [("/v1/score", SCORE), ("/v1/chat/completions", CHAT)])
def test_work_ends_when_its_caller_hangs_up(path: str, body: Any) -> None:
    async def work() -> None:
        engine = held()
        async with running(engine, limits={"in_flight": 1}) as app:
            caller = Caller(app, path, body)
            await wait_until(lambda: engine.running == 1)
            caller.hang_up()
            await caller.done()
            assert (engine.running, engine.dropped) == (0, 1)
            assert caller.messages == []
            engine.gate.set()
            assert (await Caller(app, path, body).done()).status == 200

    run(work())


def test_a_stream_ends_when_its_caller_hangs_up() -> None:
    async def work() -> None:
        engine = CountingEngine()
        engine.pause_after = 2
        async with running(engine) as app:
            caller = Caller(app, "/v1/chat/completions", {**CHAT, "stream": True, "n": 3})
            await wait_until(lambda: caller.text.count("calm") >= 6)
            caller.hang_up()
            await caller.done()
            assert (engine.running, engine.dropped) == (0, 3)
            assert "[DONE]" not in caller.text

    run(work())


@pytest.mark.parametrize("path", [*SCORING, *WRITING])
def test_every_request_in_flight_is_answered_when_the_server_must_end(path: str) -> None:
    """The error has the form of each dialect, as those that a route raises."""

    async def work() -> None:
        engine = held()
        async with running(engine, aliases={"default": "calm"}) as app:
            caller = Caller(app, path, {**SCORING, **WRITING}[path])
            await wait_until(lambda: engine.running == 1)
            assert len(app.state.in_flight) == 1
            app.state.in_flight.end(Unavailable("tiny has died", code="engine_dead", retry_after=10))
            await caller.done()
            assert (caller.status, caller.headers["retry-after"]) == (503, "10")
            assert "tiny has died" in caller.text
            assert (engine.running, engine.dropped, len(app.state.in_flight)) == (0, 1, 0)

    run(work())


def test_a_stream_is_cut_off_when_the_server_must_end() -> None:
    async def work() -> None:
        engine = CountingEngine()
        engine.pause_after = 2
        async with running(engine) as app:
            caller = Caller(app, "/v1/chat/completions", {**CHAT, "stream": True})
            await wait_until(lambda: caller.text.count("calm") >= 2)
            app.state.in_flight.end(Unavailable("tiny has died", code="engine_dead"))
            with pytest.raises(Unavailable, match="tiny has died"):
                await caller.done()
            assert (caller.status, engine.running) == (200, 0)
            assert "[DONE]" not in caller.text

    run(work())


def test_a_request_that_is_cancelled_otherwise_is_not_answered() -> None:
    async def work() -> None:
        async def wait(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.Event().wait()

        caller = Caller(Admission(wait, ServerLimits()), "/x", {})
        await let_others_run()
        caller.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller.task
        assert caller.messages == []

    run(work())


def test_a_caller_that_has_left_after_its_body_starts_nothing() -> None:
    async def work() -> None:
        calls: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            calls.append(scope["path"])

        caller = Caller(Admission(app, ServerLimits()), "/v1/score", {"items": []})
        caller.hang_up()
        await caller.done()
        assert (calls, caller.messages) == ([], [])

    run(work())


def test_a_caller_that_leaves_within_its_body_starts_nothing() -> None:
    async def work() -> None:
        engine = CountingEngine()
        async with running(engine) as app:
            caller = Caller(app, "/v1/score", SCORE)
            message = caller.inbox.get_nowait()
            caller.inbox.put_nowait({**message, "more_body": True})
            caller.hang_up()
            await caller.done()
            assert (engine.calls, caller.messages) == ([], [])

    run(work())


@pytest.mark.parametrize(("path", "body"), [("/v1/score", SCORE), ("/v1/chat/completions", {**CHAT, "stream": True})])
def test_a_deadline_that_passes_is_a_504_and_ends_the_work(path: str, body: Any) -> None:
    async def work() -> None:
        engine = held()
        async with running(engine) as app:
            caller = Caller(app, path, body, {TIMEOUT_HEADER: "600000"})
            await wait_until(lambda: engine.running == 1)
            await pass_time(599)
            assert (caller.status, engine.running) == (None, 1)
            await pass_time(1)
            await caller.done()
            assert caller.status == 504
            assert caller.error["code"] == "deadline_exceeded"
            assert "600 s" in caller.error["message"]
            assert (engine.running, engine.dropped) == (0, 1)

    run_on_clock(work())


def test_the_default_deadline_is_a_setting() -> None:
    async def work() -> None:
        async with running(held(), limits={"deadline_seconds": 0.02}) as app:
            assert (await Caller(app, "/v1/score", SCORE).done()).status == 504

    run(work())


def test_a_stream_that_has_begun_has_no_deadline() -> None:
    async def work() -> None:
        engine = CountingEngine()
        engine.pause_after = 1
        async with running(engine) as app:
            caller = Caller(app, "/v1/chat/completions", {**CHAT, "stream": True}, {TIMEOUT_HEADER: "600000"})
            await wait_until(lambda: "calm" in caller.text)
            await pass_time(6000)
            engine.gate.set()
            await caller.done()
            assert caller.status == 200
            assert caller.text.endswith("data: [DONE]\n\n")

    run_on_clock(work())


def test_a_timeout_of_the_handlers_own_is_not_taken_for_the_deadline() -> None:
    async def work() -> None:
        async def failing(scope: Any, receive: Any, send: Any) -> None:
            raise TimeoutError("mine")

        with pytest.raises(TimeoutError, match="mine"):
            await Caller(Admission(failing, ServerLimits()), "/x", {}).done()

    run(work())


def test_what_follows_the_last_byte_is_not_cut_off() -> None:
    async def work() -> None:
        finished = asyncio.Event()

        async def tidy(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"done"})
            caller.hang_up()  # as a server reports the end of a response
            await let_others_run()
            finished.set()

        caller = Caller(Admission(tidy, ServerLimits()), "/x", {})
        await caller.done()
        assert finished.is_set()

    run(work())


def test_an_application_that_waits_for_the_hangup_sees_it() -> None:
    async def work() -> None:
        seen: list[str] = []

        async def waiting(scope: Any, receive: Any, send: Any) -> None:
            try:
                seen.append((await receive())["body"].decode())
                seen.append((await receive())["type"])
            finally:
                seen.append("over")

        caller = Caller(Admission(waiting, ServerLimits()), "/x", b"body")
        await wait_until(lambda: seen)
        caller.hang_up()
        await caller.done()
        assert seen[0] == "body"
        assert seen[-1] == "over"

    run(work())


def test_other_scopes_pass() -> None:
    async def work() -> None:
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])

        await Admission(app, ServerLimits())({"type": "lifespan"}, app, app)  # type: ignore[arg-type]
        assert seen == ["lifespan"]

    run(work())


# --------------------------------------------------------------------------- uploads


def uploads(limit: int) -> tuple[Admission, list[int]]:
    """An application that reads its body itself, and the sizes of the parts that it saw."""
    seen: list[int] = []

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            seen.append(len(message["body"]))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    return Admission(reading, ServerLimits(body_bytes=10), {"/v1/files": limit}), seen


def sent(path: str, *parts: bytes, method: str = "POST", headers: Any = ()) -> tuple[Any, Any, list[Any], Any]:
    """A request in parts."""
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    for number, part in enumerate(parts):
        inbox.put_nowait({"type": "http.request", "body": part, "more_body": number < len(parts) - 1})
    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    return {"type": "http", "method": method, "path": path, "headers": list(headers)}, inbox.get, answers, send


def test_an_upload_is_read_as_it_comes_under_its_own_limit() -> None:
    async def work() -> None:
        door, seen = uploads(30)
        scope, receive, answers, send = sent("/v1/files", b"x" * 15, b"x" * 15)
        await door(scope, receive, send)
        assert (seen, answers[0]["status"]) == ([15, 15], 200)

    run(work())


def test_an_upload_over_its_limit_is_refused_where_it_goes_over() -> None:
    async def work() -> None:
        door, seen = uploads(30)
        scope, receive, answers, send = sent("/v1/files", *[b"x" * 15] * 9)
        with pytest.raises(PayloadTooLarge, match="30 bytes"):
            await door(scope, receive, send)
        assert (seen, answers) == ([15, 15], [])

    run(work())


def test_a_declared_upload_over_its_limit_is_refused_unread() -> None:
    async def work() -> None:
        door, seen = uploads(30)
        scope, receive, _, send = sent("/v1/files", b"x", headers=[(b"content-length", b"31")])
        with pytest.raises(PayloadTooLarge):
            await door(scope, receive, send)
        assert seen == []

    run(work())


@pytest.mark.parametrize(("path", "method"), [("/v1/files", "PUT"), ("/v1/files/x", "POST"), ("/v1/score", "POST")])
def test_nothing_else_may_be_as_large(path: str, method: str) -> None:
    async def work() -> None:
        door, seen = uploads(30)
        scope, receive, _, send = sent(path, b"x" * 15, method=method)
        with pytest.raises(PayloadTooLarge, match="10 bytes"):
            await door(scope, receive, send)
        assert seen == []

    run(work())


def test_an_upload_has_a_deadline_too() -> None:
    async def work() -> None:
        async def waiting(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await receive()

        limits = ServerLimits(deadline_seconds=0.01, longest_deadline_seconds=0.05)
        door = Admission(waiting, limits, {"/v1/files": 30})
        scope, receive, _, send = sent("/v1/files", b"x")
        with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s"):
            await door(scope, receive, send)

    run(work())
