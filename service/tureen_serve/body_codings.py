"""Unpack request bodies that were compressed: ``Content-Encoding: gzip`` or ``deflate``.

A body is unpacked in small pieces while it is read. Its limit holds for the bytes that came and for those that they
unpack to, and nothing is unpacked beyond it.
"""

import asyncio
import zlib
from collections.abc import Iterable

from tureen.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia
from tureen_serve.body_sizes import refuse_body
from tureen_serve.telemetry import Message, Receive

HEADER = b"content-encoding"
WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's `wbits` of each coding; HTTP's deflate is zlib's format
PIECE = 2**16  # bytes that are unpacked without a pause for other requests


def read_coding(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Read how a body is compressed; None if it is not.

    Raises:
        UnsupportedMedia: by something else than gzip or deflate, or twice.
    """
    told = b",".join(value for name, value in headers if name == HEADER).decode("latin-1").lower()
    codings = [each for part in told.split(",") if (each := part.strip()) not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in WINDOWS:
        message = f"the content encoding {', '.join(codings)[:100]} is not supported; send the body as gzip, as deflate"
        raise UnsupportedMedia(f"{message} or uncompressed", code="unsupported_encoding")
    return codings[0]


class UnpackedBody:
    """The body of one request as it is unpacked.

    Args:
        receive: that of the connection.
        coding: that :func:`read_coding` read.
        limit: the largest body in bytes, packed and unpacked.
    """

    def __init__(self, receive: Receive, coding: str, limit: int) -> None:
        self._receive = receive
        self._coding, self._limit = coding, limit
        self._stream = zlib.decompressobj(WINDOWS[coding])
        self._tail = b""  # what has come and is not unpacked
        self._full = False  # whether the last piece may have left something in the stream
        self._more = True  # whether more is to come
        self._came = self._made = 0
        self._ended = False

    async def receive(self) -> Message:
        """Receive the next piece, or what else the connection tells.

        Raises:
            InvalidRequest: the body is not what its header says.
            PayloadTooLarge: it is over the limit.
        """
        if self._ended:
            return await self._receive()
        if self._tail or self._full:
            await asyncio.sleep(0)
        else:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._take(message)
        piece = self._unpack()
        self._ended = not (self._tail or self._full or self._more)
        if self._ended and self._came and not self._stream.eof:
            raise self._refuse("ends too early")
        return {"type": "http.request", "body": piece, "more_body": not self._ended}

    def _take(self, message: Message) -> None:
        self._tail, self._more = message.get("body", b""), message.get("more_body", False)
        self._came += len(self._tail)
        if self._came > self._limit:
            raise refuse_body(self._limit)
        if self._tail and self._stream.eof:
            raise self._refuse("goes on after its end")

    def _unpack(self) -> bytes:
        most = min(PIECE, self._limit - self._made + 1)
        try:
            piece = self._stream.decompress(self._tail, most)
        except zlib.error:
            raise self._refuse("cannot be unpacked") from None
        if self._stream.unused_data:
            raise self._refuse("goes on after its end")
        self._tail, self._full = self._stream.unconsumed_tail, len(piece) == most
        self._made += len(piece)
        if self._made > self._limit:
            raise PayloadTooLarge(f"the body unpacks to over {self._limit} bytes; split it into several requests")
        return piece

    def _refuse(self, what: str) -> InvalidRequest:
        message = f"the body {what} as {self._coding}, which the header Content-Encoding names; send it as one stream"
        return InvalidRequest(f"{message}, or uncompressed and without the header", code="invalid_encoding")
