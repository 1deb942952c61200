"""A batch whose servers are killed at random moments: every line once, and the bytes of an undisturbed run.

``TUREEN_TEST_KILLS`` and ``TUREEN_TEST_LINES`` make it longer; ``make kills`` runs 50 kills in 2,000 lines.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from postgres import Postgres
from replicas import Replica
from serve.artifacts import build
from serve.requests import line, names
from waiting import block_until

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("TUREEN_TEST_KILLS", "4"))
LINES = int(os.environ.get("TUREEN_TEST_LINES", "100"))
CHUNK = max(4, LINES // 100)
OWN = re.compile(rb'"(batch_req|req)_[0-9a-f]{32}"')
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


def submit(address: str, endpoint: str) -> str:
    with httpx2.Client(base_url=address, timeout=60) as http:
        block_until(lambda: http.get("/v1/files").status_code != 503)
        upload = {"file": ("in.jsonl", content(endpoint))}
        file = http.post("/v1/files", files=upload, data={"purpose": "batch"}).raise_for_status().json()["id"]
        body = {"input_file_id": file, "endpoint": endpoint, "completion_window": "24h"}
        made: str = http.post("/v1/batches", json=body).raise_for_status().json()["id"]
        return made


def batch(address: str, name: str) -> dict[str, Any]:
    """The batch as it stands; the store may be opening still."""
    replies: list[httpx2.Response] = []

    def answered() -> bool:
        replies.append(httpx2.get(f"{address}/v1/batches/{name}", timeout=60))
        return replies[-1].status_code != 503

    block_until(answered)
    found: dict[str, Any] = replies[-1].raise_for_status().json()
    return found


def finished(address: str, name: str) -> dict[str, Any]:
    block_until(lambda: batch(address, name)["status"] == "completed", 600)
    return batch(address, name)


def outputs(address: str, ended: dict[str, Any]) -> tuple[bytes, bytes]:
    """Output and errors without the ids that each run draws anew."""
    kinds = ("output_file_id", "error_file_id")
    raws = [httpx2.get(f"{address}/v1/files/{ended[kind]}/content", timeout=60).content for kind in kinds]
    return OWN.sub(b'""', raws[0]), OWN.sub(b'""', raws[1])


def undisturbed(artifacts: Path, folder: Path, endpoint: str) -> tuple[tuple[bytes, bytes], float]:
    """What one server makes of it in peace, and in what time."""
    with replicas(1, artifacts, folder, f"sqlite:///{folder}/b.sqlite") as (one,):
        address = one.ready()
        began = time.monotonic()
        ended = finished(address, submit(address, endpoint))
        seconds = time.monotonic() - began
        return outputs(address, ended), seconds


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
        name = submit(servers[0].ready(), endpoint)
        while kills < KILLS and batch(servers[0].ready(), name)["status"] != "completed":
            for server in servers:
                server.ready()
            for victim in draw.sample(servers, count):
                time.sleep(draw.uniform(0, 1.5 * seconds / KILLS / count))
                victim.kill()
                kills += 1
            for server in servers:
                server.start()
        address = servers[0].ready()
        ended = finished(address, name)
        found = outputs(address, ended)
    assert kills >= KILLS / 2, "the batch was over before its servers could be killed"
    assert found == expected
    assert sorted(names(found[0]) + names(found[1])) == sorted(f"line-{number}" for number in range(LINES))
    counts = ended["request_counts"]
    assert (counts["total"], counts["completed"] + counts["failed"]) == (LINES, LINES)
    assert counts["failed"] == LINES // 29
    print(f"{endpoint}: {kills} kills in {LINES} lines, undisturbed {seconds:.1f} s")
