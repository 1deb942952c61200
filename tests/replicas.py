"""Servers in processes of their own that start quickly, so that they can be killed often."""

import multiprocessing
import os
import re
import signal
import sys
import time
import uuid
from pathlib import Path

import httpx2

ADDRESS = re.compile(r"on (http://127\.0\.0\.1:\d+)")
FORKS = multiprocessing.get_context("forkserver")  # what takes seconds to import is imported once
FORKS.set_forkserver_preload(
    ["tureen_serve.app", "tureen_serve.runtimes.on_transformers.models", "transformers.models.llama.modeling_llama"]
)


def serve(config: str, log: str) -> None:
    """The whole life of one server."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ["TUREEN_BATCHES__ENABLED"] = "true"
    sys.argv = ["tureen-serve", "--config", config]
    from tureen_serve.__main__ import app

    app()


class Replica:
    """A server in a process of its own, which can be killed and started again."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self.start()

    def start(self) -> None:
        """Another life."""
        self._log = self._config.with_suffix(f".{uuid.uuid4().hex}.log")
        self._process = FORKS.Process(target=serve, args=(str(self._config), str(self._log)), daemon=True)
        self._process.start()

    def ready(self) -> str:
        """The server's address, once it can score."""
        until = time.monotonic() + 120
        with httpx2.Client(timeout=20) as http:
            while time.monotonic() < until:
                said = self._log.read_text() if self._log.exists() else ""
                assert self._process.is_alive(), said
                found = ADDRESS.search(said)
                if found and http.get(f"{found[1]}/health/ready").status_code == 200:
                    return found[1]
                time.sleep(0.05)
        raise AssertionError(said)

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join(20)

    def end(self) -> int | None:
        """End it as a rollout does."""
        self._process.terminate()
        self._process.join(60)
        return self._process.exitcode
