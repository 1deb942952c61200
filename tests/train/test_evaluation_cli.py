"""``evaluate`` and ``compare`` from the command line: what they leave, and how they refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from train.tiny_runs import records
from typer.testing import CliRunner, Result

from tureen_train.__main__ import app
from tureen_train.evaluation.cli import name_folders


def call(*arguments: str | int | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


@pytest.fixture(scope="module")
def models(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    single = tiny.reward(folder / "single", base, "single", 1)
    several = tiny.reward(folder / "several", base, "several", 2, objectives=["a", "b"])
    return [single.folder, several.folder]


def test_one_model_is_evaluated(models: list[Path], tmp_path: Path) -> None:
    result = call("evaluate", models[0], "--data", records(tmp_path), "--limit", 10, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "single on preference pairs" in result.stdout
    assert "pair accuracy" in result.stdout
    assert f"the report: {tmp_path / 'out' / 'report.html'}" in result.stdout
    assert "10 of 24 items" in result.stderr
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (document["bench"], document["data"]["items"], document["model"]["name"]) == ("pairs", 10, "single")


def test_the_batch_changes_no_verdict(models: list[Path], tmp_path: Path) -> None:
    found = []
    for batch in (1, 7):
        out = tmp_path / str(batch)
        result = call("evaluate", models[0], "--data", records(tmp_path), "--batch", batch, "--out", out)
        assert result.exit_code == 0, result.output
        found.append([json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()])
    for one, other in zip(*found, strict=True):
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-5)
        assert (one["id"], one["credit"]) == (other["id"], other["credit"])


def test_several_models_are_compared_and_can_be_again(models: list[Path], tmp_path: Path) -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "id": 1}
    data = tmp_path / "filtered.jsonl"
    rows = [{**row, "subset": name, "rejected": f"b {n}"} for name in ("math-prm", "hep-go") for n in range(4)]
    data.write_text("\n".join(map(json.dumps, rows)))
    copy = tmp_path / "other" / "single"
    copy.parent.mkdir()
    copy.symlink_to(models[0], target_is_directory=True)
    out = tmp_path / "out"
    result = call("evaluate", models[0], copy, "--bench", "rewardbench", "--data", data, "--out", out)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"1-single", "2-single"}
    page = (out / "report.md").read_text()
    assert "+0.0 points" in page
    again = call("compare", out / "1-single", out / "2-single", "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again" / "report.md").read_text() == page


def test_objectives_are_named_or_weighed(models: list[Path], tmp_path: Path) -> None:
    data = records(tmp_path)
    rewards = {}
    for option, value in (("--objective", "b"), ("--preferences", "a=1,b=3")):
        result = call("evaluate", models[1], "--data", data, option, value, "--out", tmp_path / value)
        assert result.exit_code == 0, result.output
        rewards[value] = (tmp_path / value / "scores.jsonl").read_text()
    assert json.loads((tmp_path / "a=1,b=3" / "results.json").read_text())["model"]["objective"] == "a=0.25,b=0.75"
    assert rewards["b"] != rewards["a=1,b=3"]


def test_a_reward_is_subtracted_where_weights_are_used_as_given(models: list[Path], tmp_path: Path) -> None:
    words: list[str | Path] = ["evaluate", models[1], "--data", records(tmp_path), "--out", tmp_path / "out"]
    result = call(*words, "--preferences", "a=1+b=-0.5", "--normalize", "none")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "results.json").read_text())["model"]["weights"] == {"a": 1, "b": -0.5}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--bench", "mmlu"], "unknown benchmark 'mmlu'"),
        (["--bench", "rewardbench"], "missing column: `prompt`"),
        (["--form", "hh"], "no item is left to evaluate on"),
        (["--form", "nothing"], "unknown form 'nothing'"),
        (["--objective", "nothing"], "has no reward 'nothing'; its rewards are single"),
        (["--preferences", "a"], "write it as helpful=0.7+harmless=0.3"),
        (["--preferences", "nothing=1"], "unknown objective 'nothing'"),
        (["--normalize", "none"], "--normalize: say which weights with --preferences"),
        (["--preferences", "single=-1"], "negative: give `--normalize none` to subtract a reward"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_one_line(models: list[Path], tmp_path: Path, options: list[str], says: str) -> None:
    result = call("evaluate", models[0], "--data", records(tmp_path), "--out", tmp_path / "out", *options)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert says in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_there_are_named(models: list[Path], tmp_path: Path) -> None:
    assert "nowhere.json" in call("evaluate", models[0], "--data", tmp_path / "nowhere.json").stderr
    assert "it has neither tureen.json" in call("evaluate", tmp_path, "--data", records(tmp_path)).stderr
    assert "neither an evaluation" in call("compare", tmp_path, tmp_path / "x", "--out", tmp_path / "out").stderr


def test_each_model_gets_a_folder_of_its_own() -> None:
    out = Path("out")
    assert name_folders(["runs/a/artifact"], out) == [out]
    models = ["runs/a/artifact", "runs/b/artifact/", "http://127.0.0.1:8900#a", "http://host:1/"]
    assert name_folders(models, out) == [out / "1-a", out / "b", out / "3-a", out / "host-1"]


def test_no_two_ways_to_choose_at_once(models: list[Path], tmp_path: Path) -> None:
    result = call("evaluate", models[1], "--data", records(tmp_path), "--objective", "a", "--preferences", "a=1")
    assert result.exit_code == 2
    assert "give --objective or --preferences, not both" in result.stderr


def test_in_a_file_there_are_no_bars(models: list[Path], tmp_path: Path) -> None:
    words = ["evaluate", models[0], "--data", records(tmp_path), "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "tureen_train", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    assert "\r" not in ended.stdout
    assert ended.stdout.endswith(f"the report: {tmp_path / 'out' / 'report.html'}\n")
