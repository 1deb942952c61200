"""Servers in processes of their own that start quickly, so that they can be killed often."""

import multiprocessing
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx2

ADDRESS = re.compile(r"on (http://127\.0\.0\.1:\d+)")
FORKS = multiprocessing.get_context("forkserver")  # what takes seconds to import is imported once
FORKS.set_forkserver_preload(
    ["tureen_serve.app", "tureen_serve.runtimes.on_transformers.models", "transformers.models.llama.modeling_llama"]
)


def serve(config: str, log: str, prepare: Callable[[], None] | None, environment: Mapping[str, str]) -> None:
    """The whole life of one server."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update({"TUREEN_BATCHES__ENABLED": "true", **environment})
    sys.argv = ["tureen-serve", "--config", config]
    from tureen_serve.__main__ import app

    if prepare is not None:
        prepare()
    app()


class Replica:
    """A server in a process of its own, which can be killed and started again.

    Args:
        prepare: called in the process before the server starts.
        environment: further variables of the process.
    """

    def __init__(self, config: Path, prepare: Callable[[], None] | None = None, **environment: str) -> None:
        self._config = config
        self._prepare = prepare
        self._environment = environment
        self.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What this life has said."""
        return self._log.read_text() if self._log.exists() else ""

    def start(self) -> None:
        """Another life."""
        self._log = self._config.with_suffix(f".{uuid.uuid4().hex}.log")
        life = (str(self._config), str(self._log), self._prepare, self._environment)
        self._process = FORKS.Process(target=serve, args=life, daemon=True)
        self._process.start()

    def address(self) -> str:
        """Where it listens; it may be loading still."""
        until = time.monotonic() + 120
        while (found := ADDRESS.search(self.log)) is None:
            assert self._process.is_alive(), self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)
        return found[1]

    def ready(self) -> str:
        """The server's address, once it can score."""
        address, until = self.address(), time.monotonic() + 120
        with httpx2.Client(timeout=20) as http:
            while time.monotonic() < until:
                assert self._process.is_alive(), self.log
                if http.get(f"{address}/health/ready").status_code == 200:
                    return address
                time.sleep(0.05)
        raise AssertionError(self.log)

    def kill(self) -> None:
        """End it as a power cut does."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.join(20)

    def end(self) -> int | None:
        """End it as a rollout does."""
        self._process.terminate()
        return self.wait()

    def wait(self, seconds: float = 60) -> int | None:
        """The exit status once it has ended by itself; None if it has not."""
        self._process.join(seconds)
        return self._process.exitcode
