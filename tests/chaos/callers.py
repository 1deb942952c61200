"""Callers that misbehave, as bare sockets."""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close sends RST and waits for nothing


def write_request(path: str, body: Any, length: int | None = None) -> bytes:
    """A POST as bytes. ``length``: what it says of its body's length, if that is not true."""
    return frame_request(path, json.dumps(body).encode(), length)


def frame_request(path: str, content: bytes, length: int | None = None) -> bytes:
    """As :func:`write_request`, of a body that is written."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "
    return f"{head}{len(content) if length is None else length}\r\n\r\n".encode() + content


def call(url: str, content: bytes) -> socket.socket:
    """A connection that has sent some bytes."""
    place = urlsplit(url)
    found = socket.create_connection((place.hostname or "", place.port or 0), timeout=60)
    found.sendall(content)
    return found


@contextmanager
def call_many(url: str, content: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Connections that have each sent the same bytes."""
    with ExitStack() as stack:
        yield [stack.enter_context(call(url, content)) for _ in range(count)]


def hang_up(callers: list[socket.socket]) -> None:
    """Close them as a crash does."""
    for caller in callers:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        caller.close()


def read_to_end(caller: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    found = b""
    try:
        while part := caller.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found
