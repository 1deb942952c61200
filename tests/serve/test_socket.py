"""The border on a real socket: what only a connection shows, and the openai SDK, unchanged."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from serve.border import listening
from serve.counting import CountingEngine
from waiting import block_until

SCORE = {"items": [{"prompt": "hi", "candidates": ["calm", "funny"]}]}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "preferences": {"calm": 1}}
HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def engine() -> CountingEngine:
    """The one behind the server."""
    return CountingEngine()


@pytest.fixture(scope="module")
def address(engine: CountingEngine) -> Iterator[str]:
    """A server for all tests of this file."""
    with listening(engine) as found:
        yield found


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=20) as found:
        yield found


def test_requests_share_a_connection_after_errors_too(address: str) -> None:
    with httpx2.Client(base_url=address) as http:
        assert http.post("/v1/score", json=SCORE).status_code == 200
        assert http.post("/v1/score", content=b"{").status_code == 415
        assert http.post("/v1/score", json={}).status_code == 422
        assert http.get("/nope").status_code == 404
        assert http.post("/v1/score", json=SCORE).status_code == 200


def test_a_body_of_twenty_megabytes_is_a_413(address: str) -> None:
    with httpx2.Client(base_url=address) as http:
        body = SCORE | {"padding": "x" * 20_000_000}
        assert http.post("/v1/score", json=body).status_code == 413
        assert http.post("/v1/score", json=SCORE).status_code == 200


def test_so_is_one_that_does_not_say_how_long_it_is(address: str) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(12):
            yield b" " * 2**20

    headers = {"content-type": "application/json"}
    with httpx2.Client(base_url=address) as http:
        assert http.post("/v1/score", content=parts(), headers=headers).status_code == 413


def test_a_caller_that_hangs_up_ends_its_work(address: str, engine: CountingEngine) -> None:
    dropped = engine.dropped
    engine.gate.clear()
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps(SCORE).encode()
    head = (
        f"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        block_until(lambda: engine.running == 1)
    block_until(lambda: engine.running == 0)
    engine.gate.set()
    assert engine.dropped == dropped + 1


def test_a_stream_comes_in_pieces(address: str) -> None:
    with httpx2.stream("POST", f"{address}/v1/chat/completions", json=CHAT | {"stream": True}) as reply:
        lines = [line for line in reply.iter_lines() if line]
    assert reply.headers["cache-control"] == "no-store"
    assert (lines[-1], len(lines)) == ("data: [DONE]", 1 + 6 + 1 + 1)


# --------------------------------------------------------------------------- the openai SDK


def test_the_sdk_chats_with_preferences(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="words", messages=HI, extra_body={"preferences": {"calm": 0.6, "funny": 0.4}}, seed=3, max_tokens=4
    )
    assert reply.choices[0].message.role == "assistant"
    assert set((reply.choices[0].message.content or "").split()) <= {"calm", "funny"}
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 4
    assert reply.model_extra is not None
    assert reply.model_extra["preferences"] == {"calm": 0.6, "funny": 0.4}
    assert reply.model_extra["experts"] == {"calm": "calm-7", "funny": "funny-7"}


def test_the_sdk_steers_by_the_model_alone(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="words:funny=1", messages=HI, max_completion_tokens=2)
    assert reply.choices[0].message.content == "funny funny"


def test_the_sdk_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="words",
        messages=HI,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"preset": "playful"},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == " ".join(["funny"] * 6)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6
    assert chunks[0].model_extra is not None
    assert chunks[0].model_extra["preferences"] == {"funny": 1.0}


def test_the_sdks_own_stream_helper_puts_the_choices_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="words", messages=HI, n=2, logprobs=True, extra_body={"preferences": {"calm": 1}}
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [" ".join(["calm"] * 6)] * 2
    assert final.choices[0].logprobs is not None
    assert len(final.choices[0].logprobs.content or []) == 6


def test_the_sdk_sweeps(client: openai.OpenAI) -> None:
    sweep = [{"calm": 1 - step / 4, "funny": step / 4} for step in range(5)]
    reply = client.chat.completions.create(model="words", messages=HI, extra_body={"preferences": sweep})
    assert len(reply.choices) == 5
    assert reply.choices[0].message.content == " ".join(["calm"] * 6)
    assert reply.choices[4].model_extra is not None
    assert reply.choices[4].model_extra["preferences"] == {"funny": 1.0}


def test_the_sdk_gets_the_best_of_eight(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="words:even", messages=HI, extra_body={"candidates": {"n": 8, "preferences": {"funny": 1}}}
    )
    assert reply.choices[0].model_extra is not None
    assert reply.choices[0].model_extra["rewards"]["funny"]["raw"] >= 3


def test_the_sdk_sends_a_reply_back(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="words", messages=HI, logprobs=True, top_logprobs=1)
    assert first.choices[0].logprobs is not None
    messages = [*HI, first.choices[0].message, {"role": "user", "content": "more"}]
    assert client.chat.completions.create(model="words", messages=messages).choices[0].message.content


def test_the_sdk_completes(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="words", prompt=["a", "b"], max_tokens=2, logprobs=1, extra_body=CHAT_CALM)
    assert [choice.text for choice in reply.choices] == ["calm calm"] * 2
    pieces = client.completions.create(model="words", prompt="a", max_tokens=3, stream=True, extra_body=CHAT_CALM)
    assert "".join(piece.choices[0].text for piece in pieces) == "calm calm calm"


CHAT_CALM = {"preferences": {"calm": 1}}


def test_the_sdk_lists_models(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert names >= {"calm", "words", "words:playful"}
    assert client.models.retrieve("words:playful").object == "model"


@pytest.mark.parametrize(
    ("body", "kind", "param"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model"),
        (
            {"model": "words", "extra_body": {"preferences": {"angry": 1}}},
            openai.BadRequestError,
            "preferences.angry",
        ),
        ({"model": "words:calm=1", "extra_body": {"preset": "playful"}}, openai.BadRequestError, "preset"),
    ],
)
def test_the_sdk_raises_its_own_errors(client: openai.OpenAI, body: Any, kind: Any, param: str) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(messages=HI, **body)
    assert caught.value.param == param
    assert caught.value.request_id is not None


def test_the_sdk_hears_of_an_error_within_a_stream(client: openai.OpenAI, engine: CountingEngine) -> None:
    engine.breaks_after = 2
    try:
        stream = client.chat.completions.create(model="words", messages=HI, stream=True)
        with pytest.raises(openai.APIError, match="went away"):
            list(stream)
    finally:
        engine.breaks_after = None
