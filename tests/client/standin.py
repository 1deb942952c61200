"""A small real server that speaks the shapes of the wire over a socket, and fails when it is told to.

Its reward models count: ``length`` reads the characters of an answer, ``vowels`` its vowels.
"""

import asyncio
import json
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from client.jobs import ROUTES, Jobs
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tureen.errors import TureenError
from tureen.validation import explain_errors
from tureen.wire import ChatRequest, CompletionRequest, PreferencesRequest, ScoreItem, ScoreRequest

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Fault = Callable[[Message, Receive, Send], Awaitable[None]]

FINGERPRINT = {"length": "f-length", "vowels": "f-vowels"}


@dataclass
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    port: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class StandIn:
    """The server's state.

    Attributes:
        url: where it listens.
        seen: all requests since the last test.
        faults: answers that stand in for the next requests'.
        fingerprint: of its reward models.
        jobs: files and batches.
    """

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    fingerprint: dict[str, str] = field(default_factory=lambda: dict(FINGERPRINT))
    jobs: Jobs = field(default_factory=Jobs)

    def reset(self) -> None:
        self.jobs = Jobs()
        self.seen.clear()
        self.faults.clear()
        self.fingerprint = dict(FINGERPRINT)

    def fail(self, *faults: Fault) -> None:
        self.faults.extend(faults)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = await request.body()
        self.seen.append(Seen(request.method, request.url.path, headers, body, scope["client"][1]))
        scope["state"] = {"standin": self, "body": body}
        answer = self.faults.popleft() if self.faults else work
        await answer(scope, receive, send)


async def work(scope: Message, receive: Receive, send: Send) -> None:
    """Answer as asked."""
    await APP(scope, receive, send)


def reply(document: Any) -> Fault:
    """This answer, whatever was asked."""
    return JSONResponse(document)


def refusal(status: int, code: str, message: str = "told to fail", param: str | None = None, **headers: str) -> Fault:
    """An error object; ``retry_after="1"`` gives the header ``retry-after: 1``."""
    error = {"message": message, "type": "told", "param": param, "code": code}
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": error, "request_id": "req-7"}, status, headers=told)


async def hang_up(scope: Message, receive: Receive, send: Send) -> None:
    """Break the connection in the middle of an answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
    await send({"type": "http.response.body", "body": b"{", "more_body": True})
    raise ConnectionError


async def keep_silent(scope: Message, receive: Receive, send: Send) -> None:
    """Say nothing until the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def fall_silent(scope: Message, receive: Receive, send: Send) -> None:
    """Begin a stream and say nothing more until the caller has gone."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b": begun\n\n", "more_body": True})
    await keep_silent(scope, receive, send)


def drip() -> Fault:
    """A stream that goes on for ten seconds."""

    async def lines() -> AsyncIterator[str]:
        for _ in range(1000):
            yield 'data: {"choices": []}\n\n'
            await asyncio.sleep(0.01)

    return StreamingResponse(lines(), media_type="text/event-stream")


def stream_of(*data: str) -> Fault:
    """A stream of these events."""
    return StreamingResponse(iter([f"data: {each}\n\n" for each in data]), media_type="text/event-stream")


# --------------------------------------------------------------------------- routes


def score_item(index: int, item: Any) -> dict[str, Any]:
    try:
        answers = texts(ScoreItem.model_validate(item))
    except ValidationError as error:
        return {
            "index": index,
            "candidates": [],
            "error": detail(explain_errors(error.errors(), item).at(f"items[{index}]")),
        }
    return {"index": index, "candidates": [score_text(place, text) for place, text in enumerate(answers)]}


def texts(item: ScoreItem) -> list[str]:
    answers = [item.messages] if item.messages else item.candidates or []
    return [answer if isinstance(answer, str) else answer[-1].text for answer in answers]


def score_text(index: int, text: str) -> dict[str, Any]:
    raw = {"length": float(len(text)), "vowels": float(sum(text.count(vowel) for vowel in "aeiou"))}
    scores = {name: {"raw": value, "calibrated": (value - 10) / 5} for name, value in raw.items()}
    return {"index": index, "scores": scores, "reward": raw["length"], "tokens": len(text), "error": None}


def detail(error: TureenError) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def bulk(kind: type[ScoreRequest] | type[PreferencesRequest], standin: StandIn, body: bytes) -> dict[str, Any]:
    document = json.loads(body)
    items = document["items"]
    spare = document.get("on_error") == "item"
    asked = kind.model_validate({**document, "items": [{"prompt": "x", "candidates": ["y", "z"]}] if spare else items})
    rows = [score_item(index, item) for index, item in enumerate(items)]
    tokens = sum(candidate["tokens"] for row in rows for candidate in row["candidates"])
    return {
        "object": "list",
        "fingerprint": standin.fingerprint,
        "preferences": asked.preferences,
        "data": rows,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


async def score(request: Request) -> Response:
    return JSONResponse(bulk(ScoreRequest, request.state.standin, request.state.body))


async def preferences(request: Request) -> Response:
    reply = bulk(PreferencesRequest, request.state.standin, request.state.body)
    document = json.loads(request.state.body)
    make = {"full": full, "trl": trl, "ranking": ranking}[document.get("format", "full")]
    reply["data"] = [row if row.get("error") else make(row, document["items"][row["index"]]) for row in reply["data"]]
    return JSONResponse(reply)


def order(row: dict[str, Any]) -> list[int]:
    rewards = [candidate["reward"] for candidate in row["candidates"]]
    return sorted(range(len(rewards)), key=lambda place: -rewards[place])


def full(row: dict[str, Any], item: Any) -> dict[str, Any]:
    places = order(row)
    margin = row["candidates"][places[0]]["reward"] - row["candidates"][places[-1]]["reward"]
    verdict = {"ranking": places, "chosen": places[0], "rejected": places[-1], "margin": margin, "tie": margin == 0}
    matrix = [[0.75 if places.index(one) < places.index(other) else 0.25 for other in places] for one in places]
    return {**row, **verdict, "probability": 0.75, "matrix": matrix}


def trl(row: dict[str, Any], item: Any) -> dict[str, Any]:
    verdict = full(row, item)
    chosen, rejected = (
        [{"role": "assistant", "content": item["candidates"][verdict[which]]}] for which in ("chosen", "rejected")
    )
    prompt = [{"role": "user", "content": item["prompt"]}]
    return {"index": row["index"], "prompt": prompt, "chosen": chosen, "rejected": rejected, "tie": verdict["tie"]}


def ranking(row: dict[str, Any], item: Any) -> dict[str, Any]:
    return {"index": row["index"], "ranking": order(row)}


def pieces(said: str, weights: Any) -> list[str]:
    mixture = "+".join(f"{weight:g}{name}" for name, weight in (weights or {}).items()) or "plain"
    return [mixture, " says ", said]


def generated(kind: str) -> dict[str, Any]:
    return {
        "id": "gen-1",
        "object": kind,
        "created": 1,
        "model": "smol",
        "steering": {"method": "soup"},
        "experts": {"academy": "v1"},
    }


async def chat(request: Request) -> Response:
    asked = ChatRequest.model_validate_json(request.state.body)
    said = asked.messages[-1].text
    maps = asked.preferences if isinstance(asked.preferences, list) else [asked.preferences]
    if asked.stream:
        chunks = [{"index": 0, "delta": {"content": piece}} for piece in pieces(said, maps[0])]
        return events("chat.completion.chunk", chunks)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": "".join(pieces(said, weights))},
            "finish_reason": "stop",
            "preferences": weights,
        }
        for index, weights in enumerate(maps)
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return JSONResponse({**generated("chat.completion"), "choices": choices, "usage": usage})


async def complete(request: Request) -> Response:
    asked = CompletionRequest.model_validate_json(request.state.body)
    prompts = [str(each) for each in asked.prompts()]
    if asked.stream:
        chunks = [{"index": 0, "text": piece} for piece in pieces(prompts[0], asked.preferences)]
        return events("text_completion", chunks)
    made = ["".join(pieces(prompt, asked.preferences)) for prompt in prompts]
    choices = [{"index": index, "text": text} for index, text in enumerate(made)]
    return JSONResponse({**generated("text_completion"), "choices": choices})


def events(kind: str, choices: list[dict[str, Any]]) -> Response:
    async def lines() -> AsyncIterator[str]:
        yield ": a comment\n\n"
        for choice in choices:
            yield f"data: {json.dumps({**generated(kind), 'choices': [choice]})}\n\n"
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        yield f"data: {json.dumps({**generated(kind), 'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


async def models(request: Request) -> Response:
    reward = {
        "id": "length",
        "kind": "reward",
        "objectives": ["length"],
        "max_length": 2048,
        "version": "0123456789abcdef",
    }
    policy = {
        "id": "smol",
        "kind": "policy",
        "objectives": ["academy", "business"],
        "steering": ["soup"],
        "new_field": 1,
    }
    return JSONResponse({"object": "list", "data": [reward, policy]})


async def ready(request: Request) -> Response:
    return JSONResponse({"status": "ready"})


async def refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    refused = explain_errors(error.errors(), json.loads(request.state.body))
    return JSONResponse({"error": detail(refused), "request_id": "req-7"}, refused.status)


APP = Starlette(
    routes=[
        Route("/v1/score", score, methods=["POST"]),
        Route("/v1/preferences", preferences, methods=["POST"]),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", complete, methods=["POST"]),
        Route("/v1/models", models),
        Route("/health/ready", ready),
        *ROUTES,
    ],
    exception_handlers={ValidationError: refuse},
)


@contextmanager
def serving(app: Any, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """The address of an ASGI application that is served by a thread."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = uvicorn.Config(app, log_level="critical", lifespan=lifespan, ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def free_url() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        return f"http://127.0.0.1:{door.getsockname()[1]}"
