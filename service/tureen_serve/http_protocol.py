"""uvicorn's HTTP protocol with bounds: the headers of a request, idle connections, and callers who do not read.

A caller of HTTP/1.0, as some proxies are, gets no chunks: the end of the connection is the end of a stream.

What is refused here never reaches the application. It is answered in the error object too.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from tureen.errors import HeadersTooLarge, InvalidRequest, TureenError
from tureen_serve.faults import build_error_reply
from tureen_serve.limit_settings import ServerLimits
from tureen_serve.security.headers import complete_headers

LINGER = 1.0  # seconds in which a refused caller may still send; a connection that closes at once loses the reply
FRAME = 4  # bytes of a header beside its name and value


def make_protocol(
    limits: ServerLimits, note: Callable[[TureenError], None] = lambda _: None
) -> type[HttpToolsProtocol]:
    """Make the protocol class of a server.

    Args:
        limits: those that hold for a connection.
        note: called with the error of each request that is refused here.
    """
    return type("LimitedProtocol", (BoundedProtocol,), {"limits": limits, "note": staticmethod(note)})


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        limits: ``headers``, ``header_bytes`` and ``idle_seconds`` hold here.
        note: called with the error of each request that is refused here.
    """

    limits = ServerLimits()
    note: Callable[[TureenError], None]
    _in_head = True  # between the first byte of a request, or the connection's begin, and the end of the headers
    _head = 0  # bytes of the request's line and headers that were parsed
    _partial = 0  # bytes of a header that is not complete
    _began = False  # whether a request began in the bytes that are parsed now
    _mixed = False  # whether one ended in them
    _refused = False
    _excess: TureenError | None = None
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all waiting."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, and refuse a request whose headers are too large before they are complete."""
        if self._refused:
            return
        before = self._head + self._partial
        self._began = self._mixed = False
        super().data_received(data)
        if not self._in_head or self._refused:
            return
        came = len(data) if self._began else before + len(data)
        self._partial = 0 if self._mixed else max(0, came - self._head)
        if self._clock is None:
            self._start_clock()
        try:
            self._count(0)
        except HeadersTooLarge:
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin to count a request's headers."""
        self._in_head, self._head, self._partial, self._began = True, 0, 0, True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value) + FRAME)
        if len(self.headers) >= self.limits.headers:
            self._refuse_head(f"more than {self.limits.headers} headers (`limits.headers`)")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer the request."""
        self._in_head = False
        self._stop_clock()
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0" and self.cycle is not None and self.cycle.scope is self.scope:
            self.cycle.__class__ = UnchunkedCycle  # uvicorn has no other way in; the answer begins in a later turn

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._mixed = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer a request that cannot be parsed, and close the connection a little later."""
        fault = self._excess or InvalidRequest("this is not a request of HTTP/1.1", code="invalid_http")
        reply = build_error_reply(fault)
        headers = [*self.server_state.default_headers, *complete_headers(reply.raw_headers), (b"connection", b"close")]
        lines = [STATUS_LINE[fault.status], *(b"%s: %s\r\n" % header for header in headers), b"\r\n", reply.body]
        self._refused = True
        self.note(fault)
        self._stop_clock()
        self.transport.write(b"".join(bytes(line) for line in lines))
        self._clock = self.loop.call_later(LINGER, self.transport.abort)

    def pause_writing(self) -> None:
        """Give a caller who does not read the reply some time."""
        super().pause_writing()
        self._start_clock()

    def resume_writing(self) -> None:
        """Go on: the caller reads."""
        self._stop_clock()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection without a request, also if the last reply was not read."""
        self.transport.abort()

    def _count(self, size: int) -> None:
        self._head += size
        if self._head + self._partial > self.limits.header_bytes:
            self._refuse_head(f"more than {self.limits.header_bytes} bytes of headers (`limits.header_bytes`)")

    def _refuse_head(self, what: str) -> None:
        self._excess = HeadersTooLarge(f"the request has {what}; send fewer or shorter ones")
        raise self._excess

    def _start_clock(self) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(self.limits.idle_seconds, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


class UnchunkedCycle(RequestResponseCycle):
    """The answer to a request of HTTP/1.0. uvicorn closes the connection after it."""

    _without_length = False

    async def send(self, message: Any) -> None:
        """Send a part of the answer: without a length, all that comes until the connection ends."""
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            if b"content-length" not in names:
                self._without_length, self.chunked_encoding = True, False
        elif self._without_length:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)
