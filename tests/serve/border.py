"""The server in process: over :class:`CountingEngine`, by HTTP or by bare ASGI messages."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from serve.counting import CountingEngine
from starlette.testclient import TestClient
from waiting import PATIENCE, block_until, wait_until

from tureen_serve.app import create_app
from tureen_serve.http_protocol import make_protocol
from tureen_serve.inference.engine import Engine
from tureen_serve.settings import load_settings


def application(engine: Engine, **settings: Any) -> FastAPI:
    """The application over an engine."""
    return create_app(load_settings(**settings), lambda *_: engine)


def wait_for_models(app: FastAPI, seconds: float = 300) -> None:
    """Until what is configured is loaded, or cannot be."""
    block_until(lambda: app.state.server.engine is not None or app.state.server.failure, seconds)


@contextmanager
def served(engine: Engine | None = None, **settings: Any) -> Iterator[TestClient]:
    """A client of a server whose engine is loaded."""
    app = application(engine or CountingEngine(), **settings)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_for_models(app)
        assert app.state.server.engine is not None
        yield client


@asynccontextmanager
async def running(engine: Engine, **settings: Any) -> AsyncIterator[FastAPI]:
    """The application on this loop, its engine loaded."""
    app = application(engine, **settings)
    async with app.router.lifespan_context(app):
        await wait_until(lambda: app.state.server.engine is not None)
        yield app


class Caller:
    """One request as ASGI messages, by a caller that can hang up."""

    def __init__(self, app: Any, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        sent = {"content-type": "application/json", **(headers or {})}
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET" if body is None else "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.inbox.put_nowait({"type": "http.request", "body": content, "more_body": False})
        self.messages: list[Any] = []
        self.task = asyncio.create_task(app(self.scope, self.inbox.get, self._send))

    async def _send(self, message: Any) -> None:
        self.messages.append(message)

    def hang_up(self) -> None:
        """Close the connection."""
        self.inbox.put_nowait({"type": "http.disconnect"})

    async def done(self) -> "Caller":
        """Wait for the end of the request."""
        async with asyncio.timeout(PATIENCE):
            await self.task
        return self

    @property
    def status(self) -> int | None:
        """The status, None if no answer has begun."""
        return self.messages[0]["status"] if self.messages else None

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers."""
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def text(self) -> str:
        """What has come of the body."""
        return b"".join(each.get("body", b"") for each in self.messages[1:]).decode()

    @property
    def error(self) -> dict[str, Any]:
        """The error object in the answer."""
        found: dict[str, Any] = json.loads(self.text)["error"]
        return found


@contextmanager
def listening(engine: Engine, **settings: Any) -> Iterator[str]:
    """The address of a real server on a free port of this machine, its engine loaded."""
    with listening_app(application(engine, **settings)) as address:
        yield address


def _configure(app: FastAPI) -> uvicorn.Config:
    server = app.state.server
    http = make_protocol(server.limits, server.metrics.count_unparsed)
    return uvicorn.Config(app, http=http, log_config=None, access_log=False, timeout_graceful_shutdown=5)


@contextmanager
def listening_app(app: FastAPI) -> Iterator[str]:
    """As :func:`listening`, of an application that loads its own engine."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(_configure(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_for_models(app)
        assert app.state.server.engine is not None
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
