"""``tureen-serve`` as a process, over tiny real artifacts."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
from serve.artifacts import PROBE
from waiting import block_until

SCORE = {"items": [{"messages": PROBE}]}
START_SECONDS = 240.0  # to import torch and transformers on a busy machine


class Process:
    """``tureen-serve`` in a process of its own.

    Args:
        program: what Python runs; by default the command itself.
    """

    def __init__(self, *arguments: str, program: Sequence[str] = ("-m", "tureen_serve"), **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        self.address = self.first_line.split()[-1]

    def wait_until_ready(self) -> None:
        block_until(lambda: self.get("/health/ready").status_code == 200, START_SECONDS)

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(f"{self.address}{path}", timeout=60)

    def score(self) -> httpx2.Response:
        return httpx2.post(f"{self.address}/v1/score", json=SCORE, timeout=60)

    def end(self) -> tuple[int, str]:
        """The status and what was logged; killed if it has not ended by itself."""
        try:
            _, log = self.process.communicate(timeout=START_SECONDS)
        finally:
            self.process.kill()
        return self.process.returncode, log


@contextmanager
def run_server(config: Path, **environment: str) -> Iterator[Process]:
    """A server that is ready; it ends behind the block."""
    running = Process("--config", str(config), **environment)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.process.terminate()
        running.end()
