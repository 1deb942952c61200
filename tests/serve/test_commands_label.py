"""``tureen-serve label``: what it takes, writes, says and refuses."""

import gzip
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from pyarrow.parquet import read_table
from serve.artifacts import build
from serve.labelling import BAD, item, rows, write
from typer.testing import CliRunner, Result
from waiting import block_until

from tureen.cli import app as client_app
from tureen.labelling.journal import count_kept
from tureen_core.plain.option_flags import name_flags
from tureen_serve.__main__ import app
from tureen_serve.commands import label


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["label", *map(str, arguments)])


def test_the_flags_are_these() -> None:
    command = typer.main.get_command(app).commands["label"]  # type: ignore[attr-defined]
    flags = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    cutting = "format pairs ties tie-margin min-margin min-probability seed"
    models = "starter reward config runtime dtype device objective preference normalize truncate form map"
    running = "out engine write fail run restart ray-address actors gpus json"
    plain = name_flags(form="--reward-form").values()
    assert flags == {*plain, *(f"--{name}" for name in f"{cutting} {models} {running}".split())}


def test_help_loads_neither_torch_nor_ray() -> None:
    code = "import sys, tureen_serve.commands.label; sys.exit(sum(name in sys.modules for name in ('torch', 'ray')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_folder_of_files_is_labelled(config: Path, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", [item(1), *BAD[:2], item(2)])
    write(tmp_path / "in" / "b.jsonl", [item(number) for number in range(3, 9)])
    out = tmp_path / "new" / "out"
    result = run(tmp_path / "in", "--out", out, "--config", config, "--format", "rewardbench", "--objective", "helpful")
    assert result.exit_code == 1, result.output
    assert result.stdout.splitlines() == [
        f"labelled 2 of 4 items into 2 rows: {out}/a.jsonl; ties 0; failed 2: {out}/a.errors.jsonl",
        f"labelled 4 of 6 items into 4 rows: {out}/b.jsonl; ties 0; failed 2: {out}/b.errors.jsonl",
    ]
    assert [row["id"] for row in rows(out / "a.jsonl")] == ["a.jsonl:1", "a.jsonl:4"]
    state = json.loads((out / "a.jsonl.run.json").read_bytes())
    assert state["tally"]["preferences"] == {"helpful": 1.0}


def test_json_tells_of_each_file(config: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [item(1)])
    options = ("--reward", config.parent / "helpful", "--dtype", "float32", "--device", "cpu", "--json")
    result = run(source, "--out", tmp_path / "out", "--format", "trl", "--pairs", "all", *options)
    (told,) = map(json.loads, result.stdout.splitlines())
    assert (told["labelled"], told["rows"], told["source"]) == (1, 3, str(source))
    assert list(told["fingerprint"]) == ["helpful"]
    assert result.stderr == ""


@pytest.mark.parametrize("write_as", ["jsonl.gz", "parquet"])
def test_other_ways_of_writing(config: Path, tmp_path: Path, write_as: str) -> None:
    source = write(tmp_path / "a.jsonl", [item(1), item(2)])
    for ending in ("jsonl", write_as):
        assert run(source, "--out", tmp_path / "out", "--config", config, "--write", ending).exit_code == 0
    path = tmp_path / "out" / f"a.{write_as}"
    content = read_table(path).to_pylist() if write_as == "parquet" else [json.loads(x) for x in gzip.open(path)]  # noqa: SIM115
    assert [row["id"] for row in content] == [row["id"] for row in rows(tmp_path / "out" / "a.jsonl")]


def test_the_first_bad_item_ends_it_where_that_is_asked_for(config: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [item(1), BAD[1]])
    result = run(source, "--out", tmp_path / "out", "--config", config, "--fail")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"tureen-serve: {source}, line 2: candidates: list should have at least 2 items")
    spared = run(source, "--out", tmp_path / "out", "--config", config, "--json")
    assert spared.exit_code == 1
    assert json.loads(spared.stdout)["errors"] == str(tmp_path / "out" / "a.errors.jsonl")


def test_what_both_commands_take_has_one_name() -> None:
    here, there = (
        {option for parameter in command.params for option in parameter.opts}
        for command in (
            typer.main.get_command(app).commands["label"],  # type: ignore[attr-defined]
            typer.main.get_command(client_app).commands["label"],  # type: ignore[attr-defined]
        )
    )
    # `--reward` is an artifact's folder where models are loaded, and `--objective` what the other calls so
    assert there - here == {"source", "target", "--parallel", "--outage", "--url", "-r"}


@pytest.mark.parametrize("empty", ["", "\n"])
def test_inputs_without_any_item_are_said_and_an_empty_one_among_others_is_none(
    config: Path, tmp_path: Path, empty: str
) -> None:
    (tmp_path / "a.jsonl").write_text(empty)
    options = ("--out", tmp_path / "out", "--config", config)
    result = run(tmp_path / "a.jsonl", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"tureen-serve: {tmp_path}/a.jsonl holds no items; write one item per line")
    write(tmp_path / "b.jsonl", [item(1), item(2)])
    assert run(tmp_path / "a.jsonl", tmp_path / "b.jsonl", *options).exit_code == 0
    assert (rows(tmp_path / "out" / "a.jsonl"), len(rows(tmp_path / "out" / "b.jsonl"))) == ([], 2)


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ([], 2, "no reward models are named: give --starter, --config FILE or --reward"),
        (["--config", "nowhere.yaml"], 2, "nowhere.yaml cannot be read"),
        (["--runtime", "jax", "--reward", "x"], 2, "runtime"),
        (["--reward", "nowhere"], 1, "there is no folder"),
        (["--reward", "x", "--min-probability", "2"], 2, "min_probability is 2"),
        (["--reward", "x", "--engine", "spark"], 2, "is not one of"),
        (["--reward", "x", "-p", "helpful"], 2, "'helpful' is not a weight: write it"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(tmp_path: Path, options: list[str], status: int, says: str) -> None:
    source = write(tmp_path / "a.jsonl", [item(1)])
    result = run(source, "--out", tmp_path / "out", *options)
    assert result.exit_code == status
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_an_empty_folder_is_said(config: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    result = run(tmp_path / "in", "--out", tmp_path / "out", "--config", config)
    assert (result.exit_code, result.stderr) == (
        1,
        "tureen-serve: the inputs have no files of items; give files named *.jsonl, *.jsonl.gz, *.json, *.csv, *.tsv, "
        "*.parquet\n",
    )


def test_without_ray_its_engine_is_refused_before_anything_is_loaded(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label, "find_spec", lambda name: None)
    result = run(
        write(tmp_path / "a.jsonl", [item(1)]), "--out", tmp_path / "out", "--config", config, "--engine", "ray"
    )
    assert (result.exit_code, result.stderr) == (
        2,
        "tureen-serve: Ray is not installed: run pip install 'tureen[ray]', or use --engine local\n",
    )


def test_an_unknown_reward_is_named(config: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [item(1)])
    options: list[Any] = ["--out", tmp_path / "out", "--config", config]
    result = run(source, *options, "-p", "humor=1")
    assert result.exit_code == 1
    assert "humor" in result.stderr
    assert run(source, *options, "-p", "helpful=1").exit_code == 0


def test_ctrl_c_keeps_what_was_answered_and_the_same_command_goes_on(config: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [item(number) for number in range(400)])
    out = tmp_path / "out"
    command = ["label", str(source), "--out", str(out), "--config", str(config), "--run", "2"]
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # also in a background job
    process = subprocess.Popen(
        [sys.executable, "-c", f"{hears}; from tureen_serve.__main__ import app; app()", *command],
        stderr=subprocess.PIPE,
        text=True,
    )
    target = out / "a.jsonl"
    block_until(lambda: count_kept(target) >= 4 or process.poll() is not None, 120)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    kept = count_kept(target)
    assert (process.returncode, 4 <= kept < 400) == (130, True)
    assert told.endswith(
        f"tureen-serve: interrupted; {kept} items are done and kept; give the same command again to continue\n"
    )
    assert run(*command[1:]).exit_code == 0
    assert [row["id"] for row in rows(target)] == [f"a.jsonl:{number}" for number in range(1, 401)]
