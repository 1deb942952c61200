"""The curves of a run in the terminal: of one that goes on, and of one that has finished."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tureen_train.__main__ import app
from tureen_train.reports import watching
from tureen_train.reports.watching import draw_bars

ENTRIES = [
    {"step": 0, "eval_heldout_accuracy": 0.5},
    *({"step": step, "loss": 0.7 - step / 100} for step in range(1, 31)),
    {"step": 30, "eval_heldout_accuracy": 0.75, "eval_heldout_spearman": 0.5},
]


def watch(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["watch", *map(str, arguments)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text("name: mine\n")
    (tmp_path / "history.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in ENTRIES))
    return tmp_path


def test_a_run_is_shown_once(run: Path) -> None:
    told = watch(run, "--once").stdout
    assert "mine: step 30" in told
    loss = next(line for line in told.splitlines() if "loss" in line)
    assert (f"{0.69:.4g}" in loss, f"{0.4:.4g}" in loss) == (True, True)
    assert ("accuracy, heldout" in told, "rank correlation, heldout" in told) == (True, True)


def test_it_watches_until_the_artifact_is_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def finish(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            (run / "history.jsonl").write_text('{"step": 1')  # it is being written
        else:
            (run / "history.jsonl").write_text('{"step": 31, "loss": 0.1}\n')
            (run / "artifact").mkdir()
            (run / "artifact" / "tureen.json").write_text("{}")

    monkeypatch.setattr("tureen_train.reports.watching.time.sleep", finish)
    told = watch(run)
    assert (told.exit_code, len(looks)) == (0, 2)
    assert "finished after 31 steps" in told.stdout
    assert "one point is no curve" in told.stdout


def test_a_folder_without_a_run_is_a_sentence(tmp_path: Path) -> None:
    told = watch(tmp_path)
    assert told.exit_code == 1
    assert "is not the folder of a training run" in told.stderr


def test_bars_go_from_the_lowest_to_the_highest() -> None:
    assert draw_bars([0.0, 1.0, 0.5]) == "▁█▅"
    assert draw_bars([2.0, 2.0]) == "▁▁"
    assert len(draw_bars([float(number) for number in range(500)])) == watching.WIDTH
