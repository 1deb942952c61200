"""The command: its flags, what stops it before it starts, checking an artifact, and a whole life as a process."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx2
import pytest
import tiny
import typer
from serve.artifacts import PROBE, build, prove
from serve.processes import START_SECONDS, Process
from typer.testing import CliRunner
from waiting import block_until

from tureen_core.plain.option_flags import name_flags
from tureen_serve.__main__ import _listen, app, ended_by_sigterm

pytestmark = pytest.mark.timeout(900)
RUN = CliRunner()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML file beside tiny artifacts."""
    return build(tmp_path_factory.mktemp("artifacts"))


# --------------------------------------------------------------------------- flags and refusals


def test_the_flags_are_these() -> None:
    command = typer.main.get_command(app)
    flags = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    models = "starter reward rewards-root rewards-memory-gib expert policy base family rank energy accept-energy"
    plain = " ".join(flag.removeprefix("--") for flag in name_flags().values())
    expected = f"{models} {plain} config host port runtime dtype device"
    assert flags == {f"--{name}" for name in expected.split()}
    assert set(command.commands) == {"check", "version", "label", "batch", "key", "fetch"}  # type: ignore[attr-defined]


def test_no_flag_takes_a_key() -> None:
    command = typer.main.get_command(app)
    making = command.commands["key"].commands["new"]  # type: ignore[attr-defined]
    assert not [option for each in (command, making) for part in each.params for option in part.opts if "key" in option]


def test_the_version() -> None:
    assert RUN.invoke(app, ["version"]).output.strip() == version("tureen")


def test_help_needs_no_model_library() -> None:
    code = (
        "import sys; import tureen_serve.__main__; sys.exit(sum(name in sys.modules for name in ('torch', 'fastapi')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no models are named"),
        (["--rewards-root", "nowhere"], "rewards_root: nowhere is not a folder"),
        (["--reward", "x", "--rewards-memory-gib", "2"], "it bounds the models in `rewards_root`; set that too"),
        (["--rewards-root", ".", "--rewards-memory-gib", "0"], "rewards_memory_gib"),
        (["--port", "70000", "--reward", "x"], "port"),
        (["--host", "0.0.0.0", "--reward", "x"], "set `keys`"),
        (["--runtime", "jax", "--reward", "x"], "runtime"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--expert", "nowhere"], "nowhere is not an expert artifact"),
    ],
)
def test_what_cannot_be_served_is_said_and_the_status_is_two(arguments: list[str], says: str) -> None:
    result = RUN.invoke(app, arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert result.output.startswith("tureen-serve: ")


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = RUN.invoke(app, ["--reward", "x", "--port", port])
    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in result.output


# --------------------------------------------------------------------------- check


def test_a_good_artifact_holds(config: Path) -> None:
    result = RUN.invoke(app, ["check", str(config.parent / "helpful"), "--dtype", "float32", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "holds" in result.output
    told = RUN.invoke(app, ["check", str(config.parent / "helpful"), "--json", "--dtype", "float32"])
    found = json.loads(told.output)
    assert (found["holds"], found["error"]) == (True, None)
    assert [proof["objective"] for proof in found["proofs"]] == ["helpful"]


def test_a_probe_that_differs_is_shown_and_fails(tmp_path: Path) -> None:
    base = tiny.base(tmp_path / "base")
    wrong = prove(tiny.reward(tmp_path / "helpful", base, "helpful", 1), off_by=0.5)
    result = RUN.invoke(app, ["check", str(wrong.folder), "--dtype", "float32"])
    assert result.exit_code == 1
    assert "differs" in result.output
    told = json.loads(RUN.invoke(app, ["check", str(wrong.folder), "--dtype", "float32", "--json"]).output)
    assert told["holds"] is False
    assert abs(told["proofs"][0]["found"] - told["proofs"][0]["expected"]) == pytest.approx(0.5, abs=1e-3)


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    artifact = tiny.reward(tmp_path / "helpful", tiny.base(tmp_path / "base"), "helpful", 1)
    weights = artifact.folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    result = RUN.invoke(app, ["check", str(artifact.folder)])
    assert result.exit_code == 1
    assert "refused" in result.output
    assert "SHA-256" in " ".join(result.output.split())
    told = json.loads(RUN.invoke(app, ["check", str(artifact.folder), "--json"]).output)
    assert (told["holds"], told["proofs"]) == (False, [])
    assert "SHA-256" in told["error"]


def test_an_expert_without_probes_is_whole_and_not_proven(config: Path) -> None:
    result = RUN.invoke(app, ["check", str(config.parent / "calm"), "--dtype", "float32"])
    assert result.exit_code == 1
    assert "not proven" in result.output
    assert "it has no probes, so its scores are not proven" in " ".join(result.output.split())
    told = json.loads(RUN.invoke(app, ["check", str(config.parent / "calm"), "--dtype", "float32", "--json"]).output)
    assert (told["holds"], told["proofs"]) == (False, [])


def test_a_folder_that_is_not_there_is_refused() -> None:
    result = RUN.invoke(app, ["check", "nowhere"])
    assert result.exit_code == 1
    assert f"there is no folder {Path.cwd()}/nowhere" in "".join(result.output.split("\n"))


# --------------------------------------------------------------------------- a life


@pytest.fixture
def server(config: Path) -> Iterator[Process]:
    """A process that serves the tiny artifacts and stays until it is told to go a second time."""
    found = Process(
        "--config", str(config), "--expert", str(config.parent / "dry"), TUREEN_LIMITS__DRAIN_SECONDS="600"
    )  # the flag replaces the file's family by one of that expert alone
    yield found
    found.process.kill()
    found.process.communicate()


def test_a_whole_life(server: Process) -> None:
    assert server.first_line.startswith("tureen-serve 0.")
    assert server.get("/health/live").status_code == 200
    server.wait_until_ready()
    assert server.get("/health").json()["families"] == ["tiny"]
    assert server.score().status_code == 200

    long = {"messages": PROBE[:1], "max_tokens": 150, "n": 8, "logit_bias": {"2": -100}}
    replies: list[httpx2.Response] = []
    asking = threading.Thread(
        target=lambda: replies.append(httpx2.post(f"{server.address}/v1/chat/completions", json=long, timeout=240))
    )
    asking.start()
    block_until(lambda: 'tureen_running_texts{lane="tiny"} 8.0' in server.get("/metrics").text or replies)
    server.process.send_signal(signal.SIGTERM)
    block_until(lambda: server.get("/health/ready").status_code != 200)
    leaving = server.get("/health/ready")
    assert (leaving.status_code, leaving.json()["error"]["code"]) == (503, "draining")
    assert server.score().status_code == 200
    server.process.send_signal(signal.SIGTERM)
    status, log = server.end()
    asking.join(60)
    assert status == 0, log
    assert replies[0].status_code == 200
    assert len(replies[0].json()["choices"]) == 8
    assert "runtime: transformers" in log
    assert "rewards: helpful, amusing; policies: tiny" in log
    assert PROBE[0]["content"] not in log
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{server.address}/health/live")


def test_what_cannot_be_loaded_ends_it_with_a_sentence_and_every_line_is_json(tmp_path: Path) -> None:
    server = Process("--reward", str(tmp_path), "--port", "0", TUREEN_LOG_FORMAT="json")
    status, log = server.end()
    lines = [json.loads(line) for line in [server.first_line, *log.splitlines()]]
    assert lines[0]["address"].startswith("http://127.0.0.1:")
    assert "error" in {line["level"] for line in lines}
    assert status == 1
    assert "the models could not be loaded" in log
    assert "neither tureen.json" in log
    assert "Traceback" not in log


def test_without_anything_in_flight_it_ends_at_once(config: Path) -> None:
    server = Process("--config", str(config))
    assert server.get("/health/live").status_code == 200
    server.process.send_signal(signal.SIGTERM)
    status, log = server.end()
    assert status == 0, log


@pytest.mark.long
def test_sigterm_ends_it_while_the_libraries_are_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time; print('importing', flush=True); time.sleep(1000)")
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-m", "tureen_serve", "--starter", "--port", "0"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"importing\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(START_SECONDS) == 0
        finally:
            process.kill()


def test_the_handler_of_sigterm_is_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ended_by_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_replies_do_not_wait_for_acknowledgements() -> None:
    """A connection that the listener accepts sends at once; the option is inherited."""
    with _listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
