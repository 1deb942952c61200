"""Connections of a bench to one server. A request is sent once: what is refused is counted, and not sent again."""

from typing import Self

import httpx2

from tureen import http_replies, http_requests, settings
from tureen.errors import TureenError
from tureen.wire import TIMEOUT_HEADER

FEW = 16  # connections of one pool: with many, looking through them for a free one takes longer than a request


class Pools:
    """As many connections as there are requests at a time, in pools of :data:`FEW`.

    Args:
        base_url: the server's address; ``TUREEN_BASE_URL`` or http://127.0.0.1:8900 by default.
        timeout: the seconds for a request, which the server is told too.
    """

    def __init__(self, base_url: str | None, timeout: float) -> None:
        self._url = settings.resolve_base_url(base_url)
        key = settings.resolve_api_key()
        self._headers = http_requests.build_headers(key) | {TIMEOUT_HEADER: str(max(1, int(timeout * 1000)))}
        self._pools: dict[httpx2.AsyncClient, int] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for pool in self._pools:
            await pool.aclose()

    async def try_request(self, path: str, body: bytes) -> None:
        """Send a request that does not count. If the server has no room for it, this is no error.

        Raises:
            TureenError: the server cannot be reached, or refuses the request for good.
        """
        try:
            http_replies.require_success(await self.post(path, body))
        except httpx2.RequestError as error:
            raise http_replies.make_connection_error(error, self._url) from None
        except TureenError as error:
            if not error.retryable:
                raise

    async def post(self, path: str, body: bytes) -> httpx2.Response:
        """Send a request and read the whole reply, however long it takes.

        Raises:
            httpx2.RequestError: there is no reply.
        """
        pool = next((each for each, busy in self._pools.items() if busy < FEW), None) or self._open()
        self._pools[pool] += 1
        try:
            return await pool.post(path, content=body)
        finally:
            self._pools[pool] -= 1

    def _open(self) -> httpx2.AsyncClient:
        pool = httpx2.AsyncClient(
            base_url=self._url, headers=self._headers, timeout=None, verify=self._url.startswith("https://")
        )
        self._pools[pool] = 0
        return pool
