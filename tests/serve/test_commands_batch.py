"""``tureen-serve batch run`` over tiny real models: what it writes, what it says, and that a kill costs a chunk."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from serve.artifacts import build
from serve.requests import line, names, score, told
from typer.testing import CliRunner
from waiting import block_until

from tureen.cli import app as client_app
from tureen_core.plain.option_flags import name_flags
from tureen_serve.__main__ import app

RUN = CliRunner()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML file beside tiny artifacts, for small chunks."""
    found = build(tmp_path_factory.mktemp("artifacts"))
    found.write_text(found.read_text() + "batches: {chunk_lines: 4}\n")
    return found


def content(count: int) -> bytes:
    bodies = [score("the wind " * (number % 9 + 1), "leaves fall") for number in range(count)]
    bodies[-1] = score("no", rewards=["bold"])
    return b"".join(line(f"n{number}", body) for number, body in enumerate(bodies))


def test_a_file_is_run_and_what_failed_is_apart(config: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(content(10))
    result = RUN.invoke(
        app, ["batch", "run", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), "--config", str(config)]
    )
    assert result.exit_code == 1, result.output
    assert result.stdout == f"done 9 of 10 lines: {tmp_path}/out.jsonl; failed 1: {tmp_path}/out.errors.jsonl\n"
    assert names((tmp_path / "out.jsonl").read_bytes()) == [f"n{n}" for n in range(9)]
    (failed,) = told((tmp_path / "out.errors.jsonl").read_bytes())
    assert failed["response"]["body"]["error"]["param"] == "rewards[0]"


def test_the_errors_may_go_elsewhere(config: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(content(2))
    arguments = [str(tmp_path / "in.jsonl"), str(tmp_path / "out"), "--error-file", str(tmp_path / "bad"), "--json"]
    result = RUN.invoke(app, ["batch", "run", *arguments, "--config", str(config)])
    said = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [said[name] for name in ("status", "total", "completed", "failed", "not_run")] == ["completed", 2, 1, 1, 0]
    assert (said["target"], said["errors"]) == (str(tmp_path / "out"), str(tmp_path / "bad"))
    assert names((tmp_path / "bad").read_bytes()) == ["n1"]


def test_the_flags_of_both_commands_are_the_same_where_they_mean_the_same() -> None:
    here, there = (
        {option for parameter in command.params for option in parameter.opts}
        for command in (
            typer.main.get_command(app).commands["batch"].commands["run"],  # type: ignore[attr-defined]
            typer.main.get_command(client_app).commands["batch"].commands["run"],  # type: ignore[attr-defined]
        )
    )
    models = {"--starter", "--reward", "--expert", "--config", "--runtime", "--dtype", "--device"}
    models |= {"--base", "--policy", "--family", "--rank", "--energy", "--accept-energy"}
    models |= set(name_flags().values())
    assert here - there == models
    assert there - here == {"--url", "--window", "--outage"}


def test_rows_are_welcome_where_the_endpoint_is_given(config: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "the wind", "candidates": ["leaves fall"], "id": 7}, {"prompt": "the", "candidates": ["fox"]}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["batch", "run", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), "--config", str(config)]
    refused = RUN.invoke(app, arguments)
    assert (refused.exit_code, "give --endpoint" in refused.output) == (2, True)
    assert RUN.invoke(app, [*arguments, "--endpoint", "/v1/score"]).exit_code == 0
    assert names((tmp_path / "out.jsonl").read_bytes()) == ["7", "in.jsonl:2"]


def test_restart_begins_anew(config: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(content(2))
    (tmp_path / "out.jsonl").write_text("of before")
    arguments = ["batch", "run", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), "--config", str(config)]
    assert RUN.invoke(app, [*arguments, "--restart"]).exit_code == 1
    assert names((tmp_path / "out.jsonl").read_bytes()) == ["n0"]


def test_an_input_that_is_not_valid_is_told_line_by_line(config: Path, tmp_path: Path) -> None:
    arguments = ["batch", "run", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), "--config", str(config)]
    for given, says in (
        (content(2) + b"\n{}\n", "in.jsonl, line 4: must be a request of `custom_id`"),
        (content(2) + b"\n" + content(1), "in.jsonl, line 4: the custom_id 'n0' is also used by another line"),
        (b"\n", "in.jsonl holds no lines"),
    ):
        (tmp_path / "in.jsonl").write_bytes(given)
        result = RUN.invoke(app, arguments)
        assert result.exit_code == 1
        assert says in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "no models are named"),
        (["--config", "nowhere.yaml"], 2, "nowhere.yaml cannot be read"),
        (["--runtime", "jax", "--reward", "x"], 2, "runtime"),
        (["--reward", "nowhere", "--runtime", "transformers"], 1, "nowhere"),
    ],
)
def test_what_cannot_be_run_is_a_sentence(tmp_path: Path, arguments: list[str], status: int, says: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(content(2))
    result = RUN.invoke(app, ["batch", "run", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), *arguments])
    assert (result.exit_code, says in result.output) == (status, True), result.output
    assert "Traceback" not in result.output


def test_a_file_that_is_there_is_not_overwritten(config: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(content(2))
    (tmp_path / "out.jsonl").write_text("precious")
    result = RUN.invoke(
        app, ["batch", "run", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), "--config", str(config)]
    )
    assert (result.exit_code, "exists already" in result.output) == (1, True)


@pytest.mark.long
def test_killed_it_goes_on_where_it_was(config: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(content(200))
    peace, war = tmp_path / "peace.jsonl", tmp_path / "war.jsonl"
    arguments = ["batch", "run", str(tmp_path / "in.jsonl")]
    assert RUN.invoke(app, [*arguments, str(peace), "--config", str(config)]).exit_code == 1
    command = [sys.executable, "-m", "tureen_serve", *arguments, str(war), "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    chunks = war.with_name("war.jsonl.unfinished") / "files" / "batches"
    block_until(lambda: len(list(chunks.glob("*/*.good"))) >= 3 or process.poll() is not None, 250)
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert not war.exists()
    done = len(list(chunks.glob("*/*.good")))
    assert 3 <= done < 50
    result = RUN.invoke(app, [*arguments, str(war), "--config", str(config)])
    assert result.exit_code == 1, result.output
    assert told(war.read_bytes()) == told(peace.read_bytes())
