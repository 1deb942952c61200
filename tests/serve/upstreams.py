"""A small server with OpenAI's routes that answers as it is told, for what an upstream may do wrong."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from waiting import PATIENCE

from tureen_serve.inference.engine import Engine
from tureen_serve.runtimes.catalogue import LoadedModels
from tureen_serve.runtimes.on_upstream.open_upstream import open_upstream
from tureen_serve.settings import FamilyEntry

KEY = "sk-secret-of-the-operator"
SENTENCES = {"brief": "Be brief.", "kind": "Be kind."}
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
Json = dict[str, Any]


def piece(text: str | None = None, finish: str | None = None, **more: Any) -> Json:
    """One chunk of a chat."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return {"model": "large-2", "system_fingerprint": "fp_there", "choices": [choice]}


WHOLE: list[Json] = [
    piece(""),
    piece("Days "),
    piece("grow short."),
    piece(finish="stop"),
    {"choices": [], "usage": USAGE},
]


@dataclass
class Reply:
    """What is answered to one request.

    Attributes:
        events: of the stream; a text is sent as it is.
        body: sent instead of a stream.
        end: the end mark is sent.
        pause: called before each event.
        cut: the connection is cut after the events, inside the chunked body.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[Json | str] = field(default_factory=lambda: list(WHOLE))
    body: str | None = None
    kind: str = "text/event-stream"
    end: bool = True
    pause: Callable[[int], Any] = lambda _: None
    cut: bool = False


@dataclass
class Upstream:
    """The server.

    Attributes:
        replies: the next ones; after them each request is answered whole.
        asked: the bodies of all requests; ``headers`` their headers and ``paths`` their paths.
        open: how many requests are being answered; ``most`` the most of them at once.
        left: how many callers closed their connection before the end.
        models: the status of the list of models.
    """

    address: str = ""
    replies: list[Reply] = field(default_factory=list)
    asked: list[Json] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    open: int = 0
    most: int = 0
    left: int = 0
    models: int = 200
    lock: threading.Lock = field(default_factory=threading.Lock)

    def family(self, name: str = "far", **changes: Any) -> FamilyEntry:
        """The settings of a family that this server writes for."""
        upstream = {"base_url": f"{self.address}/v1", "model": "large", **changes}
        said = {"sentences": SENTENCES}
        return FamilyEntry.model_validate({"name": name, "upstream": upstream, "steering": said})

    def engine(self, **changes: Any) -> Engine:
        """An engine with this family alone."""
        opened = open_upstream(self.family(**changes))
        return Engine(LoadedModels("none", (), (), upstreams=(opened,)))


@contextmanager
def upstream() -> Iterator[Upstream]:
    """A running server."""
    told = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(told.models, {}, "application/json", json.dumps({"data": [{"id": "large"}]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with told.lock:
                told.asked.append(body)
                told.headers.append({name.lower(): value for name, value in self.headers.items()})
                told.paths.append(self.path)
                told.open += 1
                told.most = max(told.most, told.open)
                reply = told.replies.pop(0) if told.replies else Reply()
            try:
                self._answer(reply)
            except OSError:
                told.left += 1
                self.close_connection = True
            finally:
                with told.lock:
                    told.open -= 1

        def _answer(self, reply: Reply) -> None:
            if reply.body is not None:
                self._send(reply.status, reply.headers, reply.kind, reply.body.encode())
                return
            self.send_response(reply.status)
            for name, value in {**reply.headers, "content-type": reply.kind, "transfer-encoding": "chunked"}.items():
                self.send_header(name, value)
            self.end_headers()
            for number, event in enumerate(reply.events):
                reply.pause(number)
                self._chunk(event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n")
            if reply.cut:
                self.close_connection = True
                return
            if reply.end:
                self._chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def _chunk(self, text: str) -> None:
            data = text.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def _send(self, status: int, headers: Mapping[str, str], kind: str, body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-type": kind, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


def fail(status: int, message: str = "", headers: Mapping[str, str] | None = None, **fields: Any) -> Reply:
    """An error of the upstream."""
    error = {"message": message or f"it says {status} about {KEY}", "type": "x", "param": None, "code": None, **fields}
    return Reply(status, headers or {}, body=json.dumps({"error": error}), kind="application/json")


def hold_at(event: int, held: threading.Event) -> Callable[[int], None]:
    """A pause before an event of a stream, until ``held`` is set."""

    def pause(number: int) -> None:
        if number == event:
            held.wait(PATIENCE)

    return pause
