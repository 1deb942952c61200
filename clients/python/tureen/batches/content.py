"""Iterate over the lines of a file on the server while it is downloaded."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Self

import httpx2

from tureen import http_replies
from tureen.errors import Unprocessable
from tureen.retry import Deadline


class Lines:
    """Splits a byte stream into lines. Only ``\\n`` ends a line, because JSON texts may contain U+2028 and the like."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, part: bytes) -> list[str]:
        """Add a part of the stream. Return the lines that end in it."""
        *whole, self._rest = (self._rest + part).split(b"\n")
        return [_text(line) for line in whole]

    def end(self) -> list[str]:
        """Return the last line, if it has no line end."""
        return [_text(self._rest)] if self._rest else []


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise Unprocessable("the file is not UTF-8, so its lines cannot be read: use files.save instead") from None


class _Reading:
    def __init__(self, response: httpx2.Response, until: Deadline) -> None:
        self._response = response
        self._until = until

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except httpx2.RequestError as error:
            self._until.check(error)
            raise http_replies.make_connection_error(error, str(self._response.url)) from error


class Content(_Reading):
    """The lines of a file, without line ends, to be iterated once.

        with client.files.content(batch.output_file_id) as lines:
            for line in lines: print(line)

    Leaving the ``with`` block early closes the connection. Iterating raises ``ConnectionFailed`` if the connection is
    cut off, and ``DeadlineExceeded`` if the deadline passes.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        lines = Lines()
        with self, self._guarded():
            for part in self._response.iter_bytes():
                self._until.check()
                yield from lines.add(part)
            yield from lines.end()

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


class AsyncContent(_Reading):
    """The asynchronous form of :class:`Content`, for ``async for`` and ``async with``."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[str]:
        lines = Lines()
        async with self:
            with self._guarded():
                async for part in self._response.aiter_bytes():
                    self._until.check()
                    for line in lines.add(part):
                        yield line
                for line in lines.end():
                    yield line

    async def close(self) -> None:
        """Close the connection."""
        await self._response.aclose()
