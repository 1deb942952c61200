"""A batch whose servers are killed at random moments: every line once, and the bytes of an undisturbed run.

``TUREEN_TEST_KILLS`` and ``TUREEN_TEST_LINES`` make it longer; ``make kills`` runs 50 kills in 2,000 lines.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from batch_runs import get_batch, read_outputs, submit_lines, wait_for_end
from postgres import Postgres
from replicas import Replica
from serve.artifacts import build
from serve.requests import line, names

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("TUREEN_TEST_KILLS", "4"))
LINES = int(os.environ.get("TUREEN_TEST_LINES", "200"))
CHUNK = max(4, LINES // 100)
WORDS = ("the", "wind", "is", "lazy", "and", "leaves", "fall", "where", "nobody", "looks")
SETTINGS = """
rewards: [{{path: helpful}}, {{path: funny, name: amusing}}]
port: 0
dtype: float32
device: cpu
runtime: transformers
batches:
  folder: {folder}
  store: {store}
  chunk_lines: {chunk}
  lease_seconds: 1
  poll_seconds: 0.05
"""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of tiny artifacts."""
    return build(tmp_path_factory.mktemp("artifacts")).parent


@contextmanager
def replicas(count: int, artifacts: Path, folder: Path, store: str) -> Iterator[list[Replica]]:
    """Servers that share one store."""
    config = artifacts / f"{folder.name}.yaml"
    config.write_text(SETTINGS.format(folder=folder, store=store, chunk=CHUNK))
    found = [Replica(config) for _ in range(count)]
    try:
        yield found
    finally:
        statuses = [replica.end() for replica in found]
    assert statuses == [0] * count


def content(endpoint: str) -> bytes:
    """Lines of all lengths, a few prompts that come again and again, some lines that no server can answer."""
    draw = random.Random(7)
    prompts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 20))) for _ in range(12)]
    lines = []
    for number in range(LINES):
        answers = [" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(draw.randint(4, 8))]
        item = {"prompt": draw.choice(prompts), "candidates": answers}
        more = {"rewards": ["bold"]} if number % 29 == 28 else {"preferences": {"helpful": 0.7, "amusing": 0.3}}
        lines.append(line(f"line-{number}", {"items": [item], **more}, endpoint))
    return b"".join(lines)


def undisturbed(artifacts: Path, folder: Path, endpoint: str) -> tuple[tuple[bytes, bytes], float]:
    """What one server makes of it in peace, and in what time."""
    with replicas(1, artifacts, folder, f"sqlite:///{folder}/b.sqlite") as (one,):
        address = one.ready()
        began = time.monotonic()
        ended = wait_for_end(address, submit_lines(address, content(endpoint), endpoint))
        seconds = time.monotonic() - began
        return read_outputs(address, ended), seconds


Store = Callable[[Path], str]


def sqlite(request: pytest.FixtureRequest) -> Store:
    return lambda folder: f"sqlite:///{folder}/batches.sqlite"


def postgresql(request: pytest.FixtureRequest) -> Store:
    server: Postgres = request.getfixturevalue("postgresql")
    return lambda folder: server.database()


@pytest.mark.parametrize(
    ("stored", "count", "endpoint"), [(sqlite, 1, "/v1/score"), (postgresql, 2, "/v1/preferences")]
)
def test_killed_at_random_moments(
    request: pytest.FixtureRequest, artifacts: Path, tmp_path: Path, stored: Any, count: int, endpoint: str
) -> None:
    expected, seconds = undisturbed(artifacts, tmp_path / f"peace-{count}", endpoint)
    draw = random.Random(11)
    folder = tmp_path / f"war-{count}"
    kills = 0
    with replicas(count, artifacts, folder, stored(request)(folder)) as servers:
        name = submit_lines(servers[0].ready(), content(endpoint), endpoint)
        while kills < KILLS and get_batch(servers[0].ready(), name)["status"] != "completed":
            for server in servers:
                server.ready()
            for victim in draw.sample(servers, count):
                time.sleep(draw.uniform(0, 1.5 * seconds / KILLS / count))
                victim.kill()
                kills += 1
            for server in servers:
                server.start()
        address = servers[0].ready()
        ended = wait_for_end(address, name)
        found = read_outputs(address, ended)
    assert kills >= KILLS / 2, "the batch was over before its servers could be killed"
    assert found == expected
    assert sorted(names(found[0]) + names(found[1])) == sorted(f"line-{number}" for number in range(LINES))
    counts = ended["request_counts"]
    assert (counts["total"], counts["completed"] + counts["failed"]) == (LINES, LINES)
    assert counts["failed"] == LINES // 29
    print(f"{endpoint}: {kills} kills in {LINES} lines, undisturbed {seconds:.1f} s")
