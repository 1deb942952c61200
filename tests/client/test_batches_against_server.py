"""Files and batches against the real application: all endpoints, and a job whose client and server are both killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from client.standin import serving
from typer.testing import CliRunner

from tureen import Client, Conflict, InvalidRequest, NotFound, cli
from tureen.batch_jobs import job
from tureen.wire import Batch, Endpoint, OutputLine
from tureen_serve.app import create_app
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.settings import FamilyEntry, RewardEntry, Settings

PAIR: dict[str, Any] = {"prompt": "Why do leaves fall?", "candidates": ["In autumn.", "The quick brown fox."]}
TALK = [{"role": "user", "content": "Why?"}]
LINES = 200


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    base = tiny.base(folder / "base")
    return {
        "base": base,
        "helpful": tiny.reward(folder / "helpful", base, "helpful", 1).folder,
        "academy": tiny.expert(folder / "academy", base, "academy", 11).folder,
    }


@pytest.fixture(scope="module")
def url(artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(
        rewards=[RewardEntry(path=artifacts["helpful"])],
        families=[FamilyEntry(name="tiny", base=str(artifacts["base"]), experts=[artifacts["academy"]])],
        dtype="float32",
        device="cpu",
        batches=BatchSettings(folder=tmp_path_factory.mktemp("jobs"), chunk_lines=4, poll_seconds=0.05),
    )
    with serving(create_app(settings), lifespan="on") as address, Client(address) as client:
        client.wait_until_ready(300)
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url, poll=0.02) as client:
        yield client


def request(to: Endpoint, number: int, **body: Any) -> dict[str, Any]:
    return {"custom_id": f"line \u2028 {number}", "method": "POST", "url": to, "body": body}


BODIES: dict[Endpoint, dict[str, Any]] = {
    "/v1/score": {"items": [PAIR]},
    "/v1/preferences": {"items": [PAIR], "format": "ranking"},
    "/v1/chat/completions": {"messages": TALK, "max_tokens": 4, "temperature": 0.0},
    "/v1/completions": {"prompt": "Why?", "max_tokens": 4, "temperature": 0.0},
}


@pytest.mark.parametrize("to", BODIES)
def test_a_batch_answers_what_its_route_would(client: Client, to: Endpoint) -> None:
    rows = [request(to, number, **BODIES[to]) for number in range(6)]
    file = client.files.upload(rows, name="feuilles d'été.jsonl")
    assert client.files.get(file.id).filename == "feuilles d'été.jsonl"
    batch = client.batches.wait(client.batches.create(file.id, to, metadata={"run": "1"}).id, deadline=120)
    assert (batch.status, batch.request_counts.completed, batch.metadata) == ("completed", 6, {"run": "1"})
    lines = [OutputLine.model_validate_json(line) for line in client.files.content(batch.output_file_id or "")]
    assert [line.custom_id for line in lines] == [row["custom_id"] for row in rows]
    answers = [line.response.body for line in lines if line.response]
    if to == "/v1/score":
        [direct] = client.score([PAIR]).data
        assert answers[0]["data"][0]["candidates"][0]["reward"] == pytest.approx(direct.candidates[0].reward, abs=1e-4)
    if to == "/v1/chat/completions":
        direct_text = client.chat(TALK, max_tokens=4, temperature=0.0).text
        assert {answer["choices"][0]["message"]["content"] for answer in answers} == {direct_text}


def test_one_key_makes_one_batch_and_serves_no_other_request(client: Client) -> None:
    file = client.files.upload([request("/v1/score", 1, **BODIES["/v1/score"])])
    made = {client.batches.create(file.id, "/v1/score", idempotency_key="mine").id for _ in range(2)}
    assert len(made) == 1
    with pytest.raises(InvalidRequest) as caught:
        client.batches.create(file.id, "/v1/score", "48h", idempotency_key="mine")
    assert caught.value.code == "idempotency_key_reused"
    client.batches.wait(made.pop(), deadline=120)


def test_what_the_server_refuses(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        client.batches.create("file-none", "/v1/score")
    assert caught.value.param == "input_file_id"
    for method in (client.batches.get, client.batches.cancel, client.files.get, client.files.delete):
        with pytest.raises(NotFound):
            method("none")
    with pytest.raises(NotFound):
        client.files.save("none", tmp_path / "out")
    file = client.files.upload([request("/v1/score", 1, **BODIES["/v1/score"])])
    ended = client.batches.wait(client.batches.create(file.id, "/v1/score").id, deadline=120)
    with pytest.raises(Conflict):
        client.batches.cancel(ended.id)


def test_lists_and_deletion(client: Client) -> None:
    files = [client.files.upload(b"{}\n", expires_after=7200) for _ in range(3)]
    assert [file.id for file in client.files.list(purpose="batch", limit=3)] == [file.id for file in files][::-1]
    assert files[0].expires_at == files[0].created_at + 7200
    for file in files:
        assert client.files.delete(file.id).deleted
    assert not {file.id for file in files} & {file.id for file in client.files.list()}
    everything = client.batches.list()
    assert list(client.batches.list(limit=2)) == list(everything[:2])


def test_a_long_batch_is_cancelled_and_keeps_what_it_has(client: Client, tmp_path: Path) -> None:
    rows = [request("/v1/chat/completions", number, messages=TALK, max_tokens=64) for number in range(400)]
    made = client.batches.create(client.files.upload(rows).id, "/v1/chat/completions")

    def stop(batch: Batch) -> None:
        if batch.request_counts.completed and batch.status == "in_progress":
            client.batches.cancel(batch.id)

    batch = client.batches.wait(made.id, on_progress=stop, longest_pause=0.02, deadline=120)
    assert batch.status == "cancelled"
    job.save_results(client, batch, tmp_path / "out.jsonl", tmp_path / "errors.jsonl")
    done, left = ((tmp_path / name).read_text().count("\n") for name in ("out.jsonl", "errors.jsonl"))
    assert 0 < done < 400
    assert done + left == 400
    assert (done, left) == (batch.request_counts.completed, batch.request_counts.failed)


# --------------------------------------------------------------------------- the command


def run(url: str, *arguments: str | Path) -> Any:
    return CliRunner().invoke(cli.app, ["batch", *map(str, arguments), "--url", url])


def test_rows_are_run_by_the_command(url: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [PAIR, {**PAIR, "id": "x"}, {**PAIR, "candidates": ["word " * 2000]}]
    source.write_text("".join(f"\n{json.dumps(row)}\n" for row in rows))
    result = run(url, "run", source, target, "--endpoint", "/v1/score", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["completed"], told["failed"]) == (1, 2, 1)
    assert [json.loads(line)["custom_id"] for line in target.read_bytes().splitlines()] == ["in.jsonl:2", "x"]
    [bad] = [OutputLine.model_validate_json(line) for line in Path(told["errors"]).read_bytes().splitlines()]
    assert (bad.custom_id, bad.refusal and bad.refusal.param) == ("in.jsonl:6", "items[0].candidates[0]")
    assert json.loads(run(url, "list", "--json", "--limit", "1").stdout)["data"][0]["id"] == told["batch"]


def test_what_no_route_would_take_is_told_by_the_files_lines(url: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    rows = [PAIR, PAIR, {**PAIR, "id": "x"}, {**PAIR, "id": "x"}]
    source.write_text("\n".join(["", *map(json.dumps, rows)]))
    result = run(url, "run", source, tmp_path / "out.jsonl", "--endpoint", "/v1/score")
    assert (result.exit_code, result.stdout) == (1, "")
    _, doubled = result.stderr.splitlines()
    assert f"{source}, line 5: the custom_id 'x' is also used by another line" in doubled


# --------------------------------------------------------------------------- kills


@contextmanager
def process(*command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the block."""
    started = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        if started.poll() is None:
            os.kill(started.pid, signal.SIGKILL)
        started.wait(60)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


@pytest.mark.long
def test_a_job_whose_client_and_server_are_killed_is_one_batch_and_whole(
    artifacts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUREEN_BATCHES__ENABLED", raising=False)
    source, target, config = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "serve.yaml"))
    names = [f"row-{number}" for number in range(LINES)]
    source.write_text("".join(json.dumps({"messages": TALK, "max_tokens": 64, "id": name}) + "\n" for name in names))
    batches = {"folder": str(tmp_path / "jobs"), "chunk_lines": 8, "lease_seconds": 1, "poll_seconds": 0.1}
    family = {"name": "tiny", "base": str(artifacts["base"]), "experts": [str(artifacts["academy"])]}
    told = {"families": [family], "device": "cpu", "port": free_port(), "batches": batches}
    config.write_text(yaml.safe_dump(told))
    url = f"http://127.0.0.1:{told['port']}"
    server = (sys.executable, "-m", "tureen_serve", "--config", config)
    command = ("batch", "run", source, target, "--endpoint", "/v1/chat/completions", "--url", url)
    with ExitStack() as stack, Client(url) as client:
        servers = [stack.enter_context(process(*server))]

        def kill_the_server(batch: Batch) -> None:
            if batch.status == "in_progress" and batch.request_counts.completed and len(servers) == 1:
                os.kill(servers[0].pid, signal.SIGKILL)
                servers[0].wait(60)
                servers.append(stack.enter_context(process(*server)))

        client.wait_until_ready(300)
        with process(sys.executable, "-c", "from tureen.cli import app; app()", *command) as killed:
            while killed.poll() is None and not client.batches.list():
                time.sleep(0.01)
        assert killed.returncode == -signal.SIGKILL
        what = job.Job(source, target, tmp_path / "errors.jsonl", "/v1/chat/completions", "24h")
        ended = job.run_job(client, what, kill_the_server)
        assert list(client.batches.list()) == [ended]
    assert len(servers) == 2
    assert (ended.status, ended.request_counts.completed) == ("completed", LINES)
    assert [json.loads(line)["custom_id"] for line in target.read_bytes().splitlines()] == names
