"""Routes that are called without FastAPI's solver answer every body as FastAPI does."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from serve.border import Caller, running, served
from serve.counting import CountingEngine
from serve.route_bodies import DIALECTS, SHARED, WRITING

from tureen.errors import Unavailable
from tureen_serve.api import strict_route
from tureen_serve.api.route_call import plan_call
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.inference.engine import Engine

GOOD = {**SHARED, **DIALECTS, **WRITING}
NAMED = {"/tei/calm/rerank": DIALECTS["/tei/rerank"], "/v1/models/calm/load": {"rename": False}}
QUERIES = ("", "?model=calm", "?model=funny&model=unknown")
OWN = {"id", "created", "created_at", "completed_at", "request_id", "e2e_latency"}  # what each reply has of its own


def list_replies(fault: str | None = None) -> dict[str, Any]:
    """The reply to good and bad bodies on every route that reads one, with and without a query."""
    engine, found = CountingEngine(), {}
    engine.down = fault
    with served(engine) as client:
        for path, body in {**GOOD, **NAMED}.items():
            wrong: list[Any] = [None, [], dict.fromkeys(body, 7.5)]
            cases = [(path + query, body) for query in QUERIES] + [(path, each) for each in wrong]
            for address, content in cases:
                reply = client.post(address, content=json.dumps(content), headers={"content-type": "application/json"})
                found[f"{address} {content}"] = reply.status_code, _leave_out(reply.json()), set(reply.headers)
    return found


def _leave_out(reply: Any) -> Any:
    if isinstance(reply, dict):
        return {name: _leave_out(each) for name, each in reply.items() if name not in OWN}
    return [_leave_out(each) for each in reply] if isinstance(reply, list) else reply


@pytest.mark.parametrize("fault", [None, "out of order"])
def test_every_reply_is_that_of_fastapi(monkeypatch: pytest.MonkeyPatch, fault: str | None) -> None:
    ours = list_replies(fault)
    monkeypatch.setattr(strict_route, "plan_call", lambda _: None)
    theirs = list_replies(fault)
    assert {name: reply for name, reply in ours.items() if reply != theirs[name]} == {}


def test_every_route_that_scores_or_writes_is_called_so() -> None:
    with served() as client:
        routes = [each for each in client.app.routes if isinstance(each, StrictRoute)]  # type: ignore[attr-defined]
    called = {route.path for route in routes if plan_call(route) is not None}
    assert called >= GOOD.keys()
    assert called >= {"/tei/{model}/rerank", "/v1/models/{name}/load"}
    assert "/v1/models/{name}/unload" not in called


class HeldEngine(CountingEngine):
    """Counts the requests that hold it."""

    held = 0

    @contextmanager
    def hold(self) -> Iterator[Engine]:
        self.held += 1
        yield self
        self.held -= 1


class Watcher(Caller):
    """Notes with each message how many requests hold the engine."""

    def __init__(self, app: Any, engine: HeldEngine) -> None:
        self.engine, self.seen = engine, list[int]()
        super().__init__(app, "/v1/score", SHARED["/v1/score"])

    async def _send(self, message: Any) -> None:
        self.seen.append(self.engine.held)
        await super()._send(message)


def test_what_a_dependency_opens_stays_open_until_the_reply_is_sent() -> None:
    engine = HeldEngine()

    async def run() -> None:
        async with running(engine) as app:
            watcher = Watcher(app, engine)
            await watcher.done()
            assert (watcher.status, watcher.seen) == (200, [1, 1])

    asyncio.run(run())
    assert engine.held == 0


def test_a_dependency_that_refuses_comes_before_the_body() -> None:
    engine = CountingEngine()
    engine.down = "out of order"
    with served(engine) as client:
        reply = client.post("/v1/score", json={"items": 3})
    assert reply.status_code == Unavailable.status
