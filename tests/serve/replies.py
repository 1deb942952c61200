"""Requests to a process that run at the same time, and their replies."""

import json
import threading
from typing import Any

import httpx2


class Replies:
    """Replies to requests that run at the same time."""

    def __init__(self, address: str) -> None:
        self.found: dict[str, tuple[int, dict[str, str], str]] = {}
        self.events = 0
        self._client = httpx2.Client(base_url=address, timeout=120)
        self._threads: list[threading.Thread] = []

    def ask(self, name: str, path: str, body: Any) -> None:
        self._threads.append(threading.Thread(target=self._ask, args=(name, path, body)))
        self._threads[-1].start()

    def _ask(self, name: str, path: str, body: Any) -> None:
        with self._client.stream("POST", path, json=body) as reply:
            parts = []
            for line in reply.iter_lines():
                parts.append(line)
                self.events += line.startswith("data: ")
            self.found[name] = (reply.status_code, dict(reply.headers), "\n".join(parts))

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(120)
        self._client.close()


def read_last_event(text: str) -> Any:
    """Read the last event of a stream."""
    return json.loads(text.strip().splitlines()[-1].removeprefix("data: "))
