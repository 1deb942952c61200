"""Run a flow's requests over the network, blocking or asynchronous: sleep, send and read.

``request_flows`` decides what to send, when to retry and how to read the reply, once for both senders.
"""

import asyncio
import time
from contextlib import aclosing, closing
from typing import Any, Protocol, Self, TypeVar

import httpx2

from tureen import http_replies, http_requests, settings
from tureen.calls.call_options import Patience
from tureen.calls.request_flows import Calls, Flow, Outcome
from tureen.http_requests import HttpRequest

T = TypeVar("T")
CONNECT_TIMEOUT = 5.0


class RunFlow(Protocol):
    """Runs a flow and returns its result."""

    def __call__(self, flow: Flow[T]) -> T: ...


class AsyncRunFlow(Protocol):
    """The asynchronous form of :class:`RunFlow`."""

    async def __call__(self, flow: Flow[T]) -> T: ...


class _Address:
    """The state of both senders: address, key, timeouts and retries."""

    def __init__(self, base_url: str | None, api_key: str | None, patience: Patience) -> None:
        self.base_url = settings.resolve_base_url(base_url)
        self._calls = Calls(**patience)
        headers = http_requests.build_headers(settings.resolve_api_key(api_key))
        # Loading certificates takes a tenth of a second, and plain http needs none.
        verify = self.base_url.startswith("https://")
        self._http_options: dict[str, Any] = {"base_url": self.base_url, "headers": headers, "verify": verify}

    def _request(self, http: httpx2.Client | httpx2.AsyncClient, send: HttpRequest) -> httpx2.Request:
        form: dict[str, Any] = {}
        if send.form is not None:
            file = (send.form.name, send.form.file, "application/jsonl")
            form = {"data": send.form.fields, "files": {"file": file}}
        timeout = httpx2.Timeout(send.timeout, connect=min(CONNECT_TIMEOUT, send.timeout))
        return http.build_request(
            send.method, send.path, content=send.body, headers=send.headers(), timeout=timeout, **form
        )


class Sender(_Address):
    """Sends requests and blocks until the reply. Thread-safe; connections are reused."""

    def __init__(
        self, base_url: str | None, api_key: str | None, transport: httpx2.BaseTransport | None, patience: Patience
    ) -> None:
        super().__init__(base_url, api_key, patience)
        self._http = httpx2.Client(**self._http_options, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _run(self, flow: Flow[T]) -> T:
        try:
            send = next(flow)
            while True:
                send = flow.send(self._send(send))
        except StopIteration as done:
            reply: T = done.value
            return reply

    def _send(self, send: HttpRequest) -> Outcome:
        time.sleep(send.delay)
        try:
            response = self._http.send(self._request(self._http, send), stream=send.stream or send.into is not None)
            if not response.is_success:
                response.read()
            elif send.into is not None:
                with closing(response), send.into.path.open("wb") as file:
                    for part in response.iter_bytes():
                        send.into.until.check()
                        file.write(part)
        except httpx2.RequestError as error:
            return http_replies.make_connection_error(error, self.base_url)
        return response


class AsyncSender(_Address):
    """The asynchronous form of :class:`Sender`, for one event loop."""

    def __init__(
        self, base_url: str | None, api_key: str | None, transport: httpx2.AsyncBaseTransport | None, patience: Patience
    ) -> None:
        super().__init__(base_url, api_key, patience)
        self._http = httpx2.AsyncClient(**self._http_options, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        try:
            send = next(flow)
            while True:
                send = flow.send(await self._send(send))
        except StopIteration as done:
            reply: T = done.value
            return reply

    async def _send(self, send: HttpRequest) -> Outcome:
        await asyncio.sleep(send.delay)
        try:
            request = self._request(self._http, send)
            response = await self._http.send(request, stream=send.stream or send.into is not None)
            if not response.is_success:
                await response.aread()
            elif send.into is not None:
                async with aclosing(response):
                    with send.into.path.open("wb") as file:
                        async for part in response.aiter_bytes():
                            send.into.until.check()
                            file.write(part)
        except httpx2.RequestError as error:
            return http_replies.make_connection_error(error, self.base_url)
        return response
