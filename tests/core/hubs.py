"""A hub on this machine, and a cache as the hub's library lays it out."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "a" * 40
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "chat_template.jinja": b"{{ x }}",
    "modeling.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "onnx/model.safetensors": b"onnx",
}


def fill_cache(root: Path, repository: str = "org/name") -> Path:
    """Write a cache by hand, as the hub's library lays it out: links in a snapshot to blobs."""
    folder = root / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    for path in (folder / "refs", folder / "blobs", snapshot):
        path.mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    for number, name in enumerate(("config.json", "model.safetensors")):
        (folder / "blobs" / str(number)).write_bytes(FILES[name])
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    return snapshot


class Hub(BaseHTTPRequestHandler):
    """A hub with one model: the information about it, and its files."""

    def do_HEAD(self) -> None:
        """Describe a file."""
        self.reply(body=False)

    def do_GET(self) -> None:
        """Send a file, or the information."""
        self.reply(body=True)

    def reply(self, body: bool) -> None:
        """Answer."""
        name = self.path.split("?")[0].partition(f"/resolve/{COMMIT}/")[2]
        if self.path.startswith("/api/models/org/name/tree/"):
            listing = [
                {"type": "file", "path": each, "size": len(FILES[each]), "oid": each.replace("/", "-")}
                for each in FILES
            ]
            content = json.dumps(listing).encode()
        elif self.path.startswith(("/api/models/org/name/revision/main", f"/api/models/org/name/revision/{COMMIT}")):
            siblings = [{"rfilename": each} for each in FILES]
            content = json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode()
        elif self.path.startswith("/org/name/") and name in FILES:
            content = FILES[name]
        else:
            content = b""
        self.send_response(200 if content else 404)
        if name:
            self.send_header("ETag", f'"{name.replace("/", "-")}"')
            self.send_header("X-Repo-Commit", COMMIT)
        elif not content:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Write no log."""


@contextmanager
def run_hub() -> Iterator[str]:
    """Run a hub; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
