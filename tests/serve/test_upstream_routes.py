"""The routes of text where another server writes: what it is sent, and what callers are told when it fails."""

import asyncio
import json
import logging
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from serve.border import Caller, running, served
from serve.scrapes import sample
from serve.upstreams import KEY, USAGE, WHOLE, Reply, Upstream, fail, hold_at, piece, upstream
from starlette.testclient import TestClient
from waiting import wait_until

from tureen.errors import Unavailable
from tureen.wire import TIMEOUT_HEADER

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK = {"messages": [{"role": "user", "content": "Why do leaves fall?"}], "max_tokens": 9}
STREAMED = {**ASK, "stream": True}
TOLD = {**ASK, "preferences": {"kind": 2, "brief": 1}}


@pytest.fixture
def far() -> Iterator[Upstream]:
    with upstream() as found:
        yield found


def post(client: TestClient, body: dict[str, Any] = ASK, path: str = CHAT) -> Any:
    return client.post(path, json=body)


def events(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]


def metric(client: TestClient, name: str, **labels: str) -> float:
    return sample(client.get("/metrics").text, name, **labels)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


# --------------------------------------------------------------------------- what it is sent, and what is answered


def test_the_reply_is_the_upstreams(far: Upstream) -> None:
    with served(far.engine()) as client:
        reply = post(client, TOLD).json()
        assert metric(client, "tureen_tokens_total", model="far", direction="in") == 11
        assert metric(client, "tureen_tokens_total", model="far", direction="out") == 3
        assert metric(client, "tureen_upstream_requests_total", lane="far", outcome="answered") == 1
    (sent,) = far.asked
    assert sent == {
        "model": "large",
        "messages": [{"role": "user", "content": "Why do leaves fall? Be kind. Be brief."}],
        "max_tokens": 9,
        "temperature": 1.0,
        "top_p": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert (far.paths, "authorization" in far.headers[0]) == (["/v1/chat/completions"], False)
    (choice,) = reply["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Days grow short.", "stop")
    assert choice["upstream"] == {"model": "large-2", "system_fingerprint": "fp_there"}
    assert choice["sentences"] == reply["steering"]["sentences"] == ["Be kind.", "Be brief."]
    assert reply["usage"] == {**USAGE, "total_tokens": 14}


def test_a_stream_is_handed_on(far: Upstream) -> None:
    with served(far.engine()) as client:
        told = post(client, {**STREAMED, "stream_options": {"include_usage": True}}).text
    found = events(told)
    choices = [choice for event in found for choice in event["choices"]]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "Days grow short."
    assert [choice["upstream"]["model"] for choice in choices if "upstream" in choice] == ["large-2"]
    assert found[-1]["usage"] == {**USAGE, "total_tokens": 14}
    assert told.endswith("data: [DONE]\n\n")


def test_bare_prompts_go_to_completions(far: Upstream) -> None:
    part = {"choices": [{"index": 0, "text": " short.", "finish_reason": "length"}], "usage": USAGE}
    far.replies = [Reply(events=[part]), Reply(events=[part])]
    with served(far.engine()) as client:
        reply = post(client, {"prompt": ["Days grow", "Cold is"], "preferences": {"brief": 1}}, TEXT).json()
    assert [choice["text"] for choice in reply["choices"]] == [" short."] * 2
    assert sorted(each["prompt"] for each in far.asked) == ["Cold is Be brief.", "Days grow Be brief."]
    assert set(far.paths) == {"/v1/completions"}
    assert (far.asked[0]["max_tokens"], reply["usage"]["prompt_tokens"]) == (16, 22)


def test_sampling_is_sent_on_as_it_is(far: Upstream) -> None:
    scored = {"content": [{"token": "Days", "logprob": -0.5, "top_logprobs": [{"token": "Days", "logprob": -0.5}]}]}
    whole = [piece("Days", logprobs=scored), piece(finish="stop"), {"choices": [], "usage": USAGE}]
    far.replies = [Reply(events=whole), Reply(events=whole)]
    sampling: Any = {"seed": 7, "presence_penalty": 0.5, "frequency_penalty": -0.5, "logit_bias": {"5": 2.0}}
    sampling |= {"min_p": 0.1, "repetition_penalty": 1.2, "min_tokens": 2, "ignore_eos": True}
    sampling |= {"stop_token_ids": [5, 6], "include_stop_str_in_output": True, "skip_special_tokens": False}
    changes: Any = {"extra": {"top_k": -1}, "honours": [*sampling, "logprobs"], "limit_field": "max_completion_tokens"}
    body = {**ASK, **sampling, "n": 2, "temperature": 0.3, "top_p": 0.9, "stop": ["!"], "logprobs": True}
    with served(far.engine(**changes)) as client:
        reply = post(client, {**body, "top_logprobs": 1})
    assert reply.status_code == 200, reply.text
    common = {**sampling, "temperature": 0.3, "top_p": 0.9, "stop": ["!"], "logprobs": True, "top_logprobs": 1}
    for seed, sent in zip((7, 8), sorted(far.asked, key=lambda each: each["seed"]), strict=True):
        assert {**common, "seed": seed, "top_k": -1, "max_completion_tokens": 9}.items() <= sent.items()
    (found,) = reply.json()["choices"][0]["logprobs"]["content"]
    assert (found["token"], found["logprob"], found["top_logprobs"][0]["token"]) == ("Days", -0.5, "Days")


@pytest.mark.parametrize(
    ("more", "path", "param"),
    [
        ({"seed": 1}, CHAT, "seed"),
        ({"logprobs": True}, CHAT, "logprobs"),
        ({"presence_penalty": 1}, CHAT, "presence_penalty"),
        ({"frequency_penalty": 1}, CHAT, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, CHAT, "logit_bias"),
        ({"top_k": 5}, CHAT, "top_k"),
        ({"min_p": 0.5}, CHAT, "min_p"),
        ({"repetition_penalty": 1.5}, CHAT, "repetition_penalty"),
        ({"min_tokens": 2}, CHAT, "min_tokens"),
        ({"ignore_eos": True}, CHAT, "ignore_eos"),
        ({"stop_token_ids": [5]}, CHAT, "stop_token_ids"),
        ({"include_stop_str_in_output": True}, CHAT, "include_stop_str_in_output"),
        ({"skip_special_tokens": False}, CHAT, "skip_special_tokens"),
        ({"reasoning_effort": "high"}, CHAT, "reasoning_effort"),
        ({"verbosity": "low"}, CHAT, "verbosity"),
        ({"continue_final_message": True}, CHAT, "continue_final_message"),
        ({"add_generation_prompt": False}, CHAT, "add_generation_prompt"),
        ({"truncate": True}, CHAT, "truncate"),
        ({"soup": {"normalize": "none"}}, CHAT, "soup"),
        ({"desired_rewards": {"kind": 1}}, CHAT, "desired_rewards"),
        ({"prompt": [1, 2]}, TEXT, "prompt"),
        ({"prompt": ""}, TEXT, "prompt"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]},
            CHAT,
            "messages[1].role",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_it_may_ignore_is_refused_by_name(far: Upstream, more: Any, path: str, param: str, stream: bool) -> None:
    with served(far.engine()) as client:
        reply = post(client, {**(ASK if path == CHAT else {}), **more, "stream": stream}, path)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert far.asked == []


# --------------------------------------------------------------------------- what it may do wrong

USED = {"choices": [], "usage": USAGE}
NAN = 'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": nu\n\n'
FAULTS = {
    "busy": (fail(429, headers={"retry-after": "7"}), 503, "upstream_busy", "7"),
    "busy for long": (fail(503, headers={"retry-after": "900"}), 503, "upstream_busy", "900"),
    "failed": (fail(500), 502, "upstream_failed", None),
    "bad gateway": (Reply(502, body="<html>bad", kind="text/html"), 502, "upstream_failed", None),
    "timed out": (fail(504), 504, "upstream_timeout", "5"),
    "no access": (fail(401, f"Incorrect API key provided: {KEY}"), 502, "upstream_denied", None),
    "no credit": (fail(402), 502, "upstream_denied", None),
    "no route": (fail(404, "no model is called large"), 502, "upstream_failed", None),
    "redirect": (Reply(307, {"location": "http://127.0.0.1:9/"}, body=""), 502, "upstream_failed", None),
    "refused": (fail(400, "top_p is odd", param="top_p"), 400, "upstream_refused", None),
    "too long": (fail(400, "This model's maximum context length is 8 tokens"), 400, "context_length_exceeded", None),
    "too large": (fail(413), 413, "payload_too_large", None),
    "page": (Reply(body="<html>Hello</html>", kind="text/html"), 502, "upstream_bad_reply", None),
    "no stream": (Reply(body=json.dumps({"choices": []}), kind="application/json"), 502, "upstream_bad_reply", None),
    "no kind": (Reply(kind=""), 502, "upstream_bad_reply", None),
    "no events": (Reply(events=[]), 502, "upstream_bad_reply", None),
    "no JSON": (Reply(events=[NAN]), 502, "upstream_bad_reply", None),
    "other JSON": (Reply(events=[{"text": "a"}]), 502, "upstream_bad_reply", None),
    "an error": (Reply(events=[{"error": {"message": KEY, "type": "server_error"}}]), 502, "upstream_failed", None),
    "busy inside": (Reply(events=[{"error": {"message": "x", "code": 429}}]), 503, "upstream_busy", "1"),
    "nothing": (Reply(events=[piece(finish="stop"), {"choices": [], "usage": {**USAGE, "completion_tokens": 0}}]),
                502, "upstream_bad_reply", None),
    "thoughts": (Reply(events=[{"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": "length"}]}, USED]),
                 502, "upstream_bad_reply", None),
    "tools": (Reply(events=[{"choices": [{"delta": {"tool_calls": [{}]}}]}]), 502, "upstream_bad_reply", None),
    "two texts": (Reply(events=[{"choices": [{"index": 1, "delta": {}}]}]), 502, "upstream_bad_reply", None),
    "cut before": (Reply(events=[piece("")], cut=True), 503, "upstream_unreachable", "5"),
    "filtered": (Reply(events=[piece(finish="content_filter")]), 400, "upstream_content_filter", None),
}  # fmt: skip
LATE = {
    "cut": (Reply(events=WHOLE[:2], cut=True), 502, "upstream_failed"),
    "ended": (Reply(events=WHOLE[:3]), 502, "upstream_bad_reply"),
    "no usage": (Reply(events=WHOLE[:4]), 502, "upstream_bad_reply"),
    "no usage of the text": (Reply(events=[*WHOLE[:4], {"choices": [], "usage": {**USAGE, "completion_tokens": 0}}]),
                             502, "upstream_bad_reply"),
    "too many tokens": (Reply(events=[*WHOLE[:4], {"choices": [], "usage": {**USAGE, "completion_tokens": 10}}]),
                        502, "upstream_bad_reply"),
    "negative tokens": (Reply(events=[*WHOLE[:4], {"choices": [], "usage": {**USAGE, "prompt_tokens": -1}}]),
                        502, "upstream_bad_reply"),
    "an error": (Reply(events=[*WHOLE[:2], {"error": {"message": KEY}}]), 502, "upstream_failed"),
    "more text": (Reply(events=[*WHOLE[:4], piece("more")]), 502, "upstream_bad_reply"),
    "broken JSON": (Reply(events=[*WHOLE[:2], NAN]), 502, "upstream_bad_reply"),
    "filtered": (Reply(events=[*WHOLE[:2], piece(finish="content_filter")]), 400, "upstream_content_filter"),
    "unknown end": (Reply(events=[*WHOLE[:2], piece(finish="tool_calls")]), 502, "upstream_bad_reply"),
}  # fmt: skip


@pytest.fixture(scope="module")
def once() -> Iterator[tuple[Upstream, TestClient]]:
    """An upstream, and a server that sends every request to it once."""
    with upstream() as far, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAR_KEY", KEY)
        with served(far.engine(retries=0, key_env="FAR_KEY")) as client:
            yield far, client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", FAULTS)
def test_a_failure_is_told_and_never_a_text(once: Any, name: str, stream: bool, caplog: Any) -> None:
    far, client = once
    reply, status, code, wait = FAULTS[name]
    far.replies = [reply]
    client.app.state.server.engine.upstreams[0]._paused_until = 0
    with caplog.at_level(logging.DEBUG):
        found = post(client, {**ASK, "stream": stream})
    assert (found.status_code, found.json()["error"]["code"]) == (status, code), found.text
    assert found.headers.get("retry-after") == wait
    assert KEY not in found.text + caplog.text
    assert "leaves" not in caplog.text
    if name == "refused":
        assert (found.json()["error"]["param"], "top_p is odd" in found.text) == ("top_p", True)


@pytest.mark.parametrize("name", LATE)
def test_a_text_that_breaks_off_is_an_error(once: Any, name: str) -> None:
    far, client = once
    reply, status, code = LATE[name]
    client.app.state.server.engine.upstreams[0]._paused_until = 0
    far.replies = [reply, reply]
    found = post(client)
    assert (found.status_code, found.json()["error"]["code"]) == (status, code), found.text
    streamed = post(client, STREAMED)
    assert (streamed.status_code, events(streamed.text)[-1]["error"]["code"]) == (200, code)
    assert "[DONE]" not in streamed.text
    assert KEY not in found.text + streamed.text
    assert not far.replies


@pytest.mark.parametrize(
    ("more", "whole"),
    [({"stop": "grow"}, WHOLE), ({"logprobs": True}, WHOLE)],
)
def test_a_field_that_it_ignored_is_noticed(far: Upstream, more: Any, whole: Any) -> None:
    far.replies = [Reply(events=whole)]
    with served(far.engine(honours=["logprobs"])) as client:
        reply = post(client, {**ASK, **more})
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_bad_reply")
    assert len(far.asked) == 1  # it had begun


# --------------------------------------------------------------------------- again, later, or not at all


@pytest.mark.parametrize("stream", [False, True])
def test_what_failed_before_its_text_is_sent_again(far: Upstream, stream: bool) -> None:
    far.replies = [fail(429, headers={"retry-after": "0.02"}), fail(500, headers={"retry-after": "0.02"})]
    with served(far.engine()) as client:
        reply = post(client, {**ASK, "stream": stream})
        assert reply.status_code == 200, reply.text
        assert "short" in reply.text
        assert [metric(client, "tureen_upstream_requests_total", outcome=name) for name in ("busy", "failed")] == [1, 1]
    assert len(far.asked) == 3


def test_an_upstream_that_asks_for_time_gets_it_from_everybody(far: Upstream) -> None:
    far.replies = [fail(429, headers={"retry-after": "20"})]
    with served(far.engine()) as client:
        for _ in range(3):
            reply = client.post(CHAT, json=ASK, headers={TIMEOUT_HEADER: "9000"})
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "upstream_busy")
            assert 18 <= int(reply.headers["retry-after"]) <= 20
    assert len(far.asked) == 1


def test_an_upstream_that_is_down_fails_its_own_requests_alone(far: Upstream) -> None:
    engine = far.engine(retries=0)
    with served(engine) as client:
        assert client.get("/health/ready").json()["upstreams"] == {"far": "working"}
        lane: Any = engine.upstreams[0].upstream
        address, lane._entry = lane._entry, lane._entry.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})
        reply = post(client)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "upstream_unreachable")
        assert reply.headers["retry-after"] == "5"
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["upstreams"]) == (200, {"far": "failing"})
        assert client.get("/health/live").status_code == 200
        assert metric(client, "tureen_upstream_failing", lane="far") == 1
        lane._entry = address
        assert post(client).status_code == 200
        assert client.get("/health").json()["upstreams"] == {"far": "working"}
        assert metric(client, "tureen_upstream_failing", lane="far") == 0


def test_a_slow_upstream_has_a_limit_also_if_it_keeps_the_connection_open(far: Upstream) -> None:
    held = threading.Event()
    far.replies = [Reply(events=[": wait\n\n", ": wait\n\n", *WHOLE], pause=hold_at(2, held))]
    with served(far.engine(idle_seconds=0.3)) as client:
        reply = post(client)
        held.set()
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "upstream_timeout")
    assert len(far.asked) == 1


def test_no_more_texts_than_its_limit_at_once(far: Upstream) -> None:
    held = threading.Event()
    far.replies = [Reply(pause=hold_at(2, held)) for _ in range(6)]
    engine = far.engine(concurrency=2)

    async def work() -> None:
        async with running(engine) as app:
            caller = Caller(app, CHAT, {**ASK, "n": 6})
            await wait_until(lambda: far.open == 2)
            (lane,) = engine.upstreams
            assert (lane.running, lane.waiting) == (2, 4)
            held.set()
            await caller.done()
            assert (caller.status, len(json.loads(caller.text)["choices"])) == (200, 6)

    run(work())
    assert (len(far.asked), far.most) == (6, 2)


# --------------------------------------------------------------------------- callers who leave, and servers that end


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_leaves_ends_the_request_upstream(far: Upstream, stream: bool) -> None:
    endless = [piece(f"word {number} ") for number in range(100_000)]
    far.replies = [Reply(events=endless)]
    engine = far.engine()

    async def work() -> None:
        async with running(engine) as app:
            caller = Caller(app, CHAT, {**ASK, "stream": stream})
            await wait_until(lambda: far.open)
            caller.hang_up()
            await caller.done()
            await wait_until(lambda: far.left)
            (lane,) = engine.upstreams
            assert (lane.running, lane.waiting) == (0, 0)

    run(work())


def test_the_deadline_ends_the_request_upstream(far: Upstream) -> None:
    held = threading.Event()
    far.replies = [Reply(events=[*WHOLE[:3], *[piece("more ")] * 100_000], pause=hold_at(2, held))]

    async def work() -> None:
        async with running(far.engine()) as app:
            late = await Caller(app, CHAT, ASK, {TIMEOUT_HEADER: "300"}).done()
            assert (late.status, late.error["code"]) == (504, "deadline_exceeded")
            held.set()
            await wait_until(lambda: far.left)

    run(work())


@pytest.mark.parametrize("way", ["close", "abandon"])
def test_a_server_that_ends_answers_what_waits_for_an_upstream(far: Upstream, way: str) -> None:
    held = threading.Event()
    far.replies = [Reply(pause=hold_at(0, held))]
    engine = far.engine(concurrency=1)

    async def work() -> None:
        async with running(engine) as app:
            callers = [Caller(app, CHAT, ASK) for _ in range(2)]
            (lane,) = engine.upstreams
            await wait_until(lambda: far.open and lane.waiting)
            if way == "close":
                await lane.close()
            else:
                engine.abandon(Unavailable("it has died", code="engine_dead"))
            for caller in callers:
                await caller.done()
                assert (caller.status, caller.error["code"]) == (503, "draining" if way == "close" else "engine_dead")
            held.set()

    run(work())
