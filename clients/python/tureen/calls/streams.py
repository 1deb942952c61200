"""Iterate over the chunks of a streamed reply."""

from collections.abc import AsyncIterator, Iterator
from typing import Generic, Self

import httpx2

from tureen.calls.stream_events import G, OpenStream


class Stream(Generic[G]):
    """A streamed reply, to be iterated once.

        with client.chat("Why?", stream=True) as stream:
            for chunk in stream: print(chunk.text, end="")

    Leaving the ``with`` block early also stops the server. Iterating raises an error that the server sends within the
    stream, and ``ConnectionFailed`` if the stream is cut off.
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
        """Close the connection."""
        self._response.close()


class AsyncStream(Generic[G]):
    """The asynchronous form of :class:`Stream`, for ``async for`` and ``async with``."""

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
        """Close the connection."""
        await self._response.aclose()
