"""Servers of tiny models in processes of their own: to be loaded, hurt, and looked at."""

import os
import re
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import yaml
from replicas import Replica
from serve.artifacts import CONFIG, PROBE
from waiting import block_until

IN_FLIGHT = "tureen_http_requests_in_flight"
WAITING = ("tureen_queue_requests", "tureen_queue_tokens", "tureen_running_texts")
FULL = 2**20  # bytes
SCORE = {"items": [{"messages": PROBE}], "rewards": ["helpful"]}


def fill_disk() -> None:
    """Let no file of this process become larger than :data:`FULL`, as where a disk is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL))


def slow_down(pass_seconds: float, token_seconds: float, row_seconds: float = 0.0) -> None:
    """Make forward passes take time and no CPU, as on a GPU: so the capacity is known, and the same on any machine.

    Args:
        pass_seconds: of a pass that scores.
        token_seconds: of a pass that writes a token.
        row_seconds: of each text in a pass that scores, beside ``pass_seconds``.
    """
    from tureen_serve.runtimes.on_transformers.generator import TransformersStepper
    from tureen_serve.runtimes.on_transformers.packed_scorer import PackedScorer

    run, step = PackedScorer._run, TransformersStepper.step

    def run_slowly(self: Any, rows: Any, memory: Any) -> Any:
        time.sleep(pass_seconds + row_seconds * len(rows))
        return run(self, rows, memory)

    def step_slowly(self: Any) -> Any:
        time.sleep(token_seconds)
        return step(self)

    PackedScorer._run, TransformersStepper.step = run_slowly, step_slowly  # type: ignore[method-assign]


@dataclass(frozen=True)
class Site:
    """A running server."""

    server: Replica
    url: str

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(f"{self.url}{path}", timeout=60)

    def score(self) -> httpx2.Response:
        return httpx2.post(f"{self.url}/v1/score", json=SCORE, timeout=60)

    def read_metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        return sum_samples(self.get("/metrics").text, name, **labels)

    def count_threads(self) -> int:
        return len(os.listdir(f"/proc/{self.server.pid}/task"))

    def count_handles(self) -> int:
        """Its open files and sockets."""
        return len(os.listdir(f"/proc/{self.server.pid}/fd"))

    def read_resident(self) -> int:
        """Its resident memory in bytes."""
        return int(Path(f"/proc/{self.server.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def read_work(self) -> dict[str, float]:
        """What is being done: requests in flight but for this one, and what waits or runs in the lanes."""
        scrape = self.get("/metrics").text
        return {name: sum_samples(scrape, name) - (name == IN_FLIGHT) for name in (IN_FLIGHT, *WAITING)}

    def wait_until_idle(self) -> None:
        """Until nothing is being done."""
        found: list[dict[str, float]] = []

        def is_idle() -> bool:
            found.append(self.read_work())
            return not any(found[-1].values())

        try:
            block_until(is_idle)
        except AssertionError:
            raise AssertionError(f"this is still being done: {found[-1]}") from None


def sum_samples(scrape: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    found = 0.0
    for line in scrape.splitlines():
        match = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
        if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
            found += float(match[2])
    return found


def write_config(artifacts: Path, name: str, **settings: Any) -> Path:
    """Write the settings of a server of these artifacts, in their folder."""
    document: dict[str, Any] = yaml.safe_load(CONFIG)
    path = artifacts / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**document, **settings}))
    return path


@contextmanager
def run_site(
    config: Path,
    pass_seconds: float = 0.0,
    token_seconds: float = 0.0,
    row_seconds: float = 0.0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """A server that is ready, until the block ends."""
    known = {"TUREEN_BATCHES__ENABLED": "false", **(environment or {})}
    server = Replica(config, partial(slow_down, pass_seconds, token_seconds, row_seconds), **known)
    try:
        yield Site(server, server.ready())
    finally:
        server.end()


def tell(figure: str) -> None:
    """Print the figure of a test; it is in the log of CI, too."""
    print(f"\nchaos: {figure}")
