"""The state of batches is hurt: scores go on, nothing acknowledged is lost, and no line is answered twice."""

import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from batch_runs import get_batch, read_outputs, submit_lines, wait_for_end
from chaos.sites import FULL, Site, fill_disk, slow_down, tell, write_config
from postgres import postgres
from replicas import Replica
from serve.requests import line, names
from waiting import block_until

pytestmark = pytest.mark.long

LINES = 60
PASS = 0.05
ENDPOINT = "/v1/score"
Prepare = Callable[[], None]


def write_lines(count: int = LINES) -> bytes:
    """Lines of which every 29th has no answer."""
    lines = []
    for number in range(count):
        rewards = ["bold"] if number % 29 == 28 else ["helpful"]
        item = {"prompt": f"why {number}?", "candidates": ["because"]}
        lines.append(line(f"line-{number}", {"items": [item], "rewards": rewards}, ENDPOINT))
    return b"".join(lines)


@contextmanager
def run_batches(
    artifacts: Path, folder: Path, count: int = 1, prepare: Prepare | None = None, **batches: Any
) -> Iterator[list[Site]]:
    """Servers on one folder of batches, each ready to score."""
    settings = {"folder": str(folder), "chunk_lines": 4, "lease_seconds": 1, "poll_seconds": 0.05, **batches}
    config = write_config(artifacts, folder.name, batches=settings)
    with ExitStack() as stack:
        servers = [Replica(config, prepare or partial(slow_down, PASS, 0.0)) for _ in range(count)]
        for server in servers:
            stack.callback(server.end)
        yield [Site(server, server.ready()) for server in servers]


def read_state(site: Site) -> str:
    state: str = site.get("/health/ready").json()["batches"]
    return state


def check_all_once(site: Site, ended: dict[str, Any]) -> None:
    """Every line is in the outputs once, and the counts are theirs."""
    done, failed = read_outputs(site.url, ended)
    assert sorted(names(done) + names(failed)) == sorted(f"line-{number}" for number in range(LINES))
    assert ended["request_counts"] == {"total": LINES, "completed": LINES - LINES // 29, "failed": LINES // 29}


def upload(site: Site, content: bytes) -> httpx2.Response:
    files = {"file": ("in.jsonl", content)}
    return httpx2.post(f"{site.url}/v1/files", files=files, data={"purpose": "batch"}, timeout=60)


def test_a_database_that_restarts_in_a_batch_loses_and_doubles_nothing(artifacts: Path, tmp_path: Path) -> None:
    draw = random.Random(5)
    restarts = 0
    with (
        postgres() as database,
        run_batches(artifacts, tmp_path / "restarts", 2, store=database.database()) as (one, other),
    ):
        name = submit_lines(one.url, write_lines(), ENDPOINT)
        while restarts < 2 and get_batch(other.url, name)["status"] != "completed":
            time.sleep(draw.uniform(0.05, 0.4))
            database.stop()
            reply = one.get(f"/v1/batches/{name}")
            assert reply.status_code == 503
            assert reply.json()["error"]["code"] == "store_unavailable"
            assert reply.headers["retry-after"]
            assert other.score().status_code == 200
            database.start()
            restarts += 1
        check_all_once(other, wait_for_end(one.url, name))
    tell(f"{restarts} crashes of PostgreSQL in a batch of {LINES} lines and 2 servers: 0 lost, 0 doubled")
    assert restarts


def test_a_full_disk_refuses_uploads_and_nothing_else(artifacts: Path, tmp_path: Path) -> None:
    with run_batches(artifacts, tmp_path / "full", prepare=fill_disk) as (site,):
        block_until(lambda: read_state(site) == "working")
        for size in (FULL + 2**19, 4 * FULL):
            reply = upload(site, b"x" * size)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
            assert reply.headers["retry-after"]
        left = sum(path.stat().st_size for path in (tmp_path / "full/files").rglob("*") if path.is_file())
        assert left == 0
        assert site.score().status_code == 200
        check_all_once(site, wait_for_end(site.url, submit_lines(site.url, write_lines(), ENDPOINT)))
        statuses = {reply.status_code for reply in (site.get("/health/live"), site.get("/health/ready"))}
    tell("a full disk: uploads get 503 with Retry-After, leave 0 bytes, and a batch that fits is complete")
    assert statuses == {200}


def test_a_folder_that_vanishes_is_missed_and_goes_on_when_it_is_back(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vanishing"
    with run_batches(artifacts, folder) as (site,):
        name = submit_lines(site.url, write_lines(), ENDPOINT)
        block_until(lambda: get_batch(site.url, name)["request_counts"]["completed"] > 0)
        folder.rename(tmp_path / "away")
        block_until(lambda: site.get(f"/v1/batches/{name}").status_code == 503)
        block_until(lambda: read_state(site) == "failing")
        assert site.score().status_code == 200
        assert upload(site, write_lines()).status_code == 503
        shutil.rmtree(folder, ignore_errors=True)
        (tmp_path / "away").rename(folder)
        began = time.monotonic()
        check_all_once(site, wait_for_end(site.url, name))
    tell(f"a folder that vanishes: 503 while it is away; its batch is complete {time.monotonic() - began:.1f} s later")


@pytest.mark.parametrize("hurt", ["garbage", "truncated", "unwritable"])
def test_a_server_whose_state_cannot_be_used_serves_all_else_and_says_why(
    artifacts: Path, tmp_path: Path, hurt: str
) -> None:
    folder = tmp_path / hurt
    if hurt == "unwritable":
        folder = Path("/proc/tureen")  # no user can make it
    else:
        folder.mkdir()
        head = b"" if hurt == "garbage" else b"SQLite format 3\0"
        (folder / "batches.sqlite").write_bytes(head + bytes(range(256)) * 64)
    with run_batches(artifacts, folder) as (site,):
        block_until(lambda: read_state(site) == "failing")
        reply = upload(site, write_lines())
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
        assert site.score().status_code == 200
        said = [each for each in site.server.log.splitlines() if "no files and batches for now" in each]
    tell(f"{hurt} state: scores go on, and the log says: {said[0][:160]}")
    assert len(said) == 1
    assert "Traceback" not in site.server.log


def test_two_servers_on_one_folder_answer_every_line_once(artifacts: Path, tmp_path: Path) -> None:
    with run_batches(artifacts, tmp_path / "shared", 2) as (one, other):
        block_until(lambda: {read_state(one), read_state(other)} == {"working"})
        names = [submit_lines(site.url, write_lines(), ENDPOINT) for site in (one, other)]
        for name in names:
            check_all_once(one, wait_for_end(other.url, name))
        shares = [site.read_metric("tureen_job_lines_total") for site in (one, other)]
    tell(f"2 servers on one folder: 2 batches of {LINES} lines, 0 lost, 0 doubled; lines of each server {shares}")
    assert sum(shares) == 2 * LINES
