"""Clients that are open for as long as anybody uses them.

Loops ask for one row at a time from many threads or tasks. Those that are under way together share a client and its
connections, and the last one closes it, so that nothing is left open when a loop ends, and a reward function holds
nothing that could not be pickled.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

from tureen import http_replies, http_requests
from tureen.adapters.options import Server
from tureen.async_client import AsyncClient
from tureen.calls.request_flows import Flow
from tureen.client import Client
from tureen.http_requests import HttpRequest
from tureen.retry import Deadline

B = TypeVar("B", bound=BaseModel)
C = TypeVar("C")


class Caller(Client):
    """A client that also asks a dialect's route."""

    def post(self, path: str, document: object, kind: type[B], deadline: float | None = None) -> B:
        """The answer to ``document``, a ``kind``; asked for as often as every call."""

        def flow() -> Flow[B]:
            send = HttpRequest("POST", path, http_requests.encode_json(document))
            response = yield from self._calls.exchange(send, Deadline(deadline))
            return http_replies.parse_response(kind, response)

        return self._run(flow())


@dataclass
class _Use(Generic[C]):
    client: C
    users: int = 0


class _Open(Generic[C]):
    """The clients in use, by what they were made for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses: dict[Hashable, _Use[C]] = {}

    def take(self, key: Hashable, make: Callable[[], C]) -> C:
        with self._lock:
            use = self._uses.get(key) or self._uses.setdefault(key, _Use(make()))
            use.users += 1
            return use.client

    def leave(self, key: Hashable) -> bool:
        """Whether nobody uses the client any more, so that it must be closed."""
        with self._lock:
            use = self._uses[key]
            use.users -= 1
            if use.users:
                return False
            del self._uses[key]
            return True


_BLOCKING = _Open[Caller]()
_ASYNCHRONOUS = _Open[AsyncClient]()


@contextmanager
def share_client(server: Server) -> Iterator[Caller]:
    """A client that all threads share who ask at the same time."""

    def make() -> Caller:
        return Caller(server.base_url, api_key=server.api_key, **server.patience())

    client = _BLOCKING.take(server, make)
    try:
        yield client
    finally:
        if _BLOCKING.leave(server):
            client.close()


@asynccontextmanager
async def share_async_client(server: Server) -> AsyncIterator[AsyncClient]:
    """A client that all tasks of this event loop share who ask at the same time."""

    def make() -> AsyncClient:
        return AsyncClient(server.base_url, api_key=server.api_key, **server.patience())

    key = (asyncio.get_running_loop(), server)
    client = _ASYNCHRONOUS.take(key, make)
    try:
        yield client
    finally:
        if _ASYNCHRONOUS.leave(key):
            await client.close()
