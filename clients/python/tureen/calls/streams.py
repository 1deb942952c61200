"""The chunks of a streamed reply, as they come."""

from collections.abc import AsyncIterator, Iterator
from typing import Generic, Self

import httpx2

from tureen.calls.stream_events import G, OpenStream


class Stream(Generic[G]):
    """Iterate it once. To stop early, leave its ``with`` block or close it: the server then stops too.

    Iterating raises the server's error if one comes within the stream, and ``ConnectionFailed`` if it breaks off.
    """

    def __init__(self, opened: OpenStream[G]) -> None:
        self._response = opened.response
        self._events = opened.events

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[G]:
        with self:
            try:
                for event in httpx2.EventSource(self._response):
                    if (chunk := self._events.read(event.data)) is not None:
                        yield chunk
            except httpx2.RequestError as error:
                raise self._events.lost(error, str(self._response.url)) from error
            self._events.finish()

    def close(self) -> None:
        """Let go of the connection."""
        self._response.close()


class AsyncStream(Generic[G]):
    """As :class:`Stream`, for ``async for`` and ``async with``."""

    def __init__(self, opened: OpenStream[G]) -> None:
        self._response = opened.response
        self._events = opened.events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[G]:
        async with self:
            try:
                async for event in httpx2.EventSource(self._response):
                    if (chunk := self._events.read(event.data)) is not None:
                        yield chunk
            except httpx2.RequestError as error:
                raise self._events.lost(error, str(self._response.url)) from error
            self._events.finish()

    async def close(self) -> None:
        """Let go of the connection."""
        await self._response.aclose()
