"""The lines of a file on the server, as they come."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Self

import httpx2

from tureen import http_replies
from tureen.errors import Unprocessable
from tureen.retry import Deadline


class Lines:
    """Cuts what comes into lines. Only ``\\n`` ends one: JSON allows U+2028 and its like within a text."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, part: bytes) -> list[str]:
        """The lines that end in this part."""
        *whole, self._rest = (self._rest + part).split(b"\n")
        return [_text(line) for line in whole]

    def end(self) -> list[str]:
        """The last line, if no end stands behind it."""
        return [_text(self._rest)] if self._rest else []


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise Unprocessable("the file is not UTF-8, so that it has no lines of text; save it instead") from None


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
    """The lines of a file, without their ends. Iterate it once, within a ``with`` block if not to the end.

    Iterating raises ``ConnectionFailed`` if the answer breaks off, and ``DeadlineExceeded`` if it takes too long.
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
        """Let go of the connection."""
        self._response.close()


class AsyncContent(_Reading):
    """As :class:`Content`, for ``async for`` and ``async with``."""

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
        """Let go of the connection."""
        await self._response.aclose()
