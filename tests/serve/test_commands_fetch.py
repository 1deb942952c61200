"""``tureen-serve fetch`` from an object store, a web server and a hub; killed in the middle, and run again."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.hubs import FILES, run_hub
from serve.web_folders import serve_folder
from typer.testing import CliRunner
from waiting import block_until

from tureen_serve.__main__ import app
from tureen_serve.commands.fetch import TERMINATED
from tureen_serve.settings import STARTER

ARTIFACT = STARTER / "rewards" / "academy"
COMMAND = [sys.executable, "-m", "tureen_serve", "fetch"]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, str]]:
    """An S3 of this module's own with an artifact in the bucket ``models``; the variables that name it."""
    import boto3

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        block_until(lambda: _answers(port))
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="y",
        )
        client.create_bucket(Bucket="models")
        client.put_object(Bucket="models", Key="team/academy/", Body=b"")
        for path in ARTIFACT.iterdir():
            client.upload_file(str(path), "models", f"team/academy/{path.name}")
        yield keys | {"AWS_ENDPOINT_URL": url}
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.long
def test_an_artifact_of_an_object_store(store: dict[str, str], tmp_path: Path) -> None:
    digest = hashlib.sha256((ARTIFACT / "tureen.json").read_bytes()).hexdigest()
    sources = tmp_path / "sources.yaml"
    sources.write_text(f"sources: [{{source: s3://models/team/academy, to: academy, digest: 'sha256:{digest}'}}]")
    first = run("--sources", sources, "--to", tmp_path / "models", "--json", **store)
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert (told["files"], told["digest"], told["downloaded"]) == (4, f"sha256:{digest}", True)
    for path in ARTIFACT.iterdir():
        assert (tmp_path / "models" / "academy" / path.name).read_bytes() == path.read_bytes()
    gone = store | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}  # nobody listens there
    again = run("--sources", sources, "--to", tmp_path / "models", **gone)
    assert again.stdout.startswith("unchanged s3://models/team/academy"), again.stderr


@pytest.mark.long
def test_a_store_that_lacks_it_says_so(store: dict[str, str], tmp_path: Path) -> None:
    for source, reason in (
        ("s3://models/other", "holds no files, or is not there"),
        ("s3://nobucket/other", "bucket does not exist"),
        ("gs://models/other", "pip install 'tureen[gs]'"),
    ):
        done = run("--source", source, "--to", tmp_path / "x", **store)
        assert done.returncode == 1
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.long
def test_a_model_of_the_hub_without_pickles_and_code(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_secret\n")
    with run_hub() as url:
        flags = ("--source", "org/name@main", "--to", tmp_path / "base", "--token-file", tmp_path / "token")
        done = run(*flags, HF_ENDPOINT=url, HF_HOME=str(tmp_path / "home"))
        assert done.returncode == 0, done.stderr
    found = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    assert found == {name: FILES[name] for name in ("config.json", "model.safetensors", "chat_template.jinja")}
    forbidden = run("--source", "org/name", "--to", tmp_path / "y", HF_HUB_OFFLINE="1", TUREEN_HUB_ON_REQUEST="")
    assert "HF_HUB_OFFLINE forbids" in forbidden.stderr


@pytest.mark.long
def test_killed_in_the_middle_and_run_again(tmp_path: Path) -> None:
    root = tmp_path / "store"
    (root / "base").mkdir(parents=True)
    weights = os.urandom(2**20) * 32
    (root / "base" / "model.safetensors").write_bytes(weights)
    listed = {"model.safetensors": hashlib.sha256(weights).hexdigest()}
    (root / "base" / "tureen.json").write_text(json.dumps({"files": listed}))
    digest = hashlib.sha256((root / "base" / "tureen.json").read_bytes()).hexdigest()
    part = tmp_path / "models" / ".tureen-fetch" / "base.part" / "files" / "model.safetensors"
    with serve_folder(root) as told:
        told.hold_after = 3 * 2**20
        flags = (
            "--source",
            f"{told.url}/base/",
            "--to",
            str(tmp_path / "models" / "base"),
            "--digest",
            f"sha256:{digest}",
        )
        for ending, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, TERMINATED)):
            before = part.stat().st_size if part.exists() else 0
            process = subprocess.Popen([*COMMAND, *flags])
            block_until(lambda: part.exists() and part.stat().st_size > before)  # noqa: B023
            process.send_signal(ending)
            assert process.wait() == status
            assert not (tmp_path / "models" / "base").exists()
        had = part.stat().st_size
        told.released.set()
        told.hold_after = None
        told.asked.clear()
        assert run(*flags).returncode == 0
    assert dict(told.asked)["/base/model.safetensors"] == f"bytes={had}-"
    assert (tmp_path / "models" / "base" / "model.safetensors").read_bytes() == weights


def test_wrong_flags_are_named(tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text("sources: [{source: a/b, to: x}]")
    for flags, reason in (
        ((), "give --source and --to, or --sources FILE"),
        (("--source", "a/b"), "give --source and --to"),
        (("--sources", file), "is relative"),
        (("--sources", file, "--source", "a/b"), "--source is for one model"),
        (("--source", "a/b", "--to", "x", "--digest", "md5:1"), "--digest: "),
    ):
        done = CliRunner().invoke(app, ["fetch", *map(str, flags)])
        assert done.exit_code == 2
        assert reason in done.output
