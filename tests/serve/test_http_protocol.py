"""Bounds of a connection: headers are refused while they arrive; who idles or does not read is let go."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from serve.border import listening
from serve.counting import CountingEngine
from waiting import PATIENCE

from tureen_serve.http_protocol import BoundedProtocol, make_protocol
from tureen_serve.limit_settings import ServerLimits

START = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
LIMITS = {"headers": 10, "header_bytes": 1000}


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as found:
        yield found


def read_all(connection: socket.socket) -> bytes:
    """All bytes until the server closes the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def read_reply(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and the error object of a reply after which the server closes the connection."""
    head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    found: dict[str, Any] = json.loads(body)
    return int(head.split()[1]), found["error"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with listening(CountingEngine(), limits=LIMITS) as found:
        yield found


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (START + b"".join(b"x-%d: y\r\n" % number for number in range(10)) + b"\r\n", "more than 10 headers"),
        (START + b"x: " + b"y" * 1000 + b"\r\n\r\n", "more than 1000 bytes of headers"),
        (START + b"x: " + b"y" * 1000, "more than 1000 bytes of headers"),  # not ended
        (START + b"y" * 1000, "more than 1000 bytes of headers"),  # a name that does not end
        (b"GET /" + b"y" * 1000 + b" HTTP/1.1\r\n\r\n", "more than 1000 bytes of headers"),
        (b"GET /" + b"y" * 1000, "more than 1000 bytes of headers"),
    ],
)
def test_headers_over_the_limits_are_a_431_with_the_setting(address: str, sent: bytes, says: str) -> None:
    with connected(address) as connection:
        connection.sendall(sent)
        status, error = read_reply(connection)
    assert (status, error["code"], error["type"]) == (431, "headers_too_large", "invalid_request_error")
    assert says in error["message"]
    assert "`limits.header" in error["message"]


def test_a_header_that_comes_byte_by_byte_is_refused_at_the_limit(address: str) -> None:
    with connected(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(START + b"x: ")
        try:
            for _ in range(100):
                connection.sendall(b"y" * 20)
        except OSError:
            pass  # the server has closed the connection
        status, _ = read_reply(connection)
    assert status == 431


def test_headers_within_the_limits_and_a_large_body_pass_on_one_connection(address: str) -> None:
    body = json.dumps({"items": [{"prompt": "hi " * 5000, "candidates": ["calm"]}], "truncate": True}).encode()
    head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with connected(address) as connection:
        for _ in range(3):
            connection.sendall(head % len(body) + body + START + b"\r\n")
            got = b""
            while got.count(b"HTTP/1.1 200 OK") < 2 or not got.endswith(b"}"):
                part = connection.recv(65536)
                assert part
                got += part


def test_what_is_no_http_is_a_400_in_the_error_object(address: str) -> None:
    with connected(address) as connection:
        connection.sendall(b"hello\r\n\r\n")
        status, error = read_reply(connection)
    assert (status, error["code"]) == (400, "invalid_http")


def test_connections_that_wait_or_trickle_are_let_go() -> None:
    impatient = listening(CountingEngine(), limits={"idle_seconds": 0.5})
    with impatient as address, connected(address) as silent, connected(address) as begun:
        begun.sendall(START)
        assert read_all(silent) == b""
        assert read_all(begun) == b""


def test_a_slow_body_is_a_504_that_closes_the_connection() -> None:
    head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with listening(CountingEngine(), limits={"body_seconds": 0.5}) as address, connected(address) as connection:
        connection.sendall(head + b"{")
        status, error = read_reply(connection)
    assert (status, error["code"]) == (504, "slow_body")
    assert "within 0.5 s (`limits.body_seconds`)" in error["message"]


def ask_old(address: str, path: str, body: Any = None, method: str = "POST") -> tuple[str, str]:
    """The headers, in small letters, and the body of a reply to HTTP/1.0."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n"
    with connected(address) as connection:
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        found, _, rest = read_all(connection).decode().partition("\r\n\r\n")
    return found.lower(), rest


def test_a_stream_to_http_1_0_has_no_chunks_and_ends_with_the_connection(address: str) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "seed": 1}
    head, text = ask_old(address, "/v1/chat/completions", body)
    assert "200 ok" in head
    assert "connection: close" in head
    assert "transfer-encoding" not in head
    assert "content-length" not in head
    lines = [line for line in text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["object"] for line in lines[:-1])


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_whole_answer_to_http_1_0_has_its_length(address: str, method: str) -> None:
    head, text = ask_old(address, "/v1/models", method=method)
    (length,) = (line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("content-length"))
    assert "transfer-encoding" not in head
    assert len(text) == (0 if method == "HEAD" else int(length))


class Transport:
    """A transport that only counts."""

    aborted = 0

    def abort(self) -> None:
        self.aborted += 1

    def get_extra_info(self, name: str) -> Any:
        return None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Clock:
    """A loop whose timers run when the test says so."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def call_later(self, seconds: float, call: Any) -> "Timer":
        timer = Timer(seconds, call)
        self.timers.append(timer)
        return timer


class Timer:
    """One timer."""

    def __init__(self, seconds: float, call: Any) -> None:
        self.seconds, self.call, self.cancelled = seconds, call, False

    def cancel(self) -> None:
        self.cancelled = True


def test_a_caller_who_does_not_read_is_let_go_and_one_who_reads_again_is_not() -> None:
    protocol: Any = BoundedProtocol.__new__(make_protocol(ServerLimits(idle_seconds=7)))
    protocol.loop, protocol.transport = Clock(), Transport()
    protocol.flow = type("Flow", (), {"pause_writing": lambda self: None, "resume_writing": lambda self: None})()
    protocol.pause_writing()
    (timer,) = protocol.loop.timers
    assert (timer.seconds, timer.cancelled) == (7, False)
    protocol.resume_writing()
    assert timer.cancelled
    protocol.pause_writing()
    protocol.loop.timers[-1].call()
    protocol.timeout_keep_alive_handler()
    assert protocol.transport.aborted == 2
