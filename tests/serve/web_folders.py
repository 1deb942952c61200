"""A web server for a folder: it counts, answers ranges, asks for a token, and cuts connections, as a test wants."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


@dataclass
class Behaviour:
    """What a server does, and the paths and ranges that it was asked for.

    Attributes:
        cuts: how many replies end after a third of their bytes.
        ranges: whether it answers ranges; otherwise it sends whole files.
        token: the token that it asks for.
        busy: how many requests it answers with 503 first.
        headers: further headers of each reply.
        hold_after: how many bytes of a reply it sends before it waits until ``released`` is set.
    """

    root: Path
    cuts: int = 0
    ranges: bool = True
    token: str | None = None
    busy: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    hold_after: int | None = None
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve_folder(root: Path) -> Iterator[Behaviour]:
    """Serve a folder on a free port."""
    told = Behaviour(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("range")
            told.asked.append((self.path, wanted))
            path = told.root / unquote(self.path.partition("?")[0]).lstrip("/")
            if told.busy:
                told.busy -= 1
                self._reply(503, b"")
            elif told.token is not None and self.headers.get("authorization") != f"Bearer {told.token}":
                self._reply(401, b"")
            elif not path.is_file():
                self._reply(404, b"")
            else:
                self._send(path.read_bytes(), wanted)

        def _send(self, content: bytes, wanted: str | None) -> None:
            start = re.fullmatch(r"bytes=(\d+)-", wanted or "")
            if start is None or not told.ranges:
                self._reply(200, content)
            elif int(start[1]) >= len(content):
                self._reply(416, b"")
            else:
                self._reply(206, content[int(start[1]) :], f"bytes {start[1]}-{len(content) - 1}/{len(content)}")

        def _reply(self, status: int, content: bytes, part: str | None = None) -> None:
            self.send_response(status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            if part is not None:
                self.send_header("content-range", part)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if told.cuts and len(content) > 3:
                told.cuts -= 1
                self.wfile.write(content[: len(content) // 3])
                self.close_connection = True
                return
            with suppress(ConnectionError):
                if told.hold_after is not None and len(content) > told.hold_after:
                    self.wfile.write(content[: told.hold_after])
                    self.close_connection = True
                    told.released.wait(60)
                    return
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Write no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
