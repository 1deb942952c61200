"""What training cost, from run folders."""

import json
from pathlib import Path

import pytest

from tureen_train.config import RecipeError
from tureen_train.config.fronts import TrainingCost
from tureen_train.front.costs import read_training_seconds


def history(folder: Path, *rows: dict[str, float]) -> str:
    folder.mkdir()
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_the_seconds_of_all_rounds_and_runs_are_summed(tmp_path: Path) -> None:
    one = history(tmp_path / "one", {"step": 1}, {"train_runtime": 2.5}, {"train_runtime": 3})
    two = history(tmp_path / "two", {"train_runtime": 10})
    assert read_training_seconds(TrainingCost(runs=[one, two])) == 15.5
    assert read_training_seconds(TrainingCost(seconds=7)) == 7
    assert read_training_seconds(TrainingCost()) is None


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="it has no history.jsonl"):
        read_training_seconds(TrainingCost(runs=[str(tmp_path)]))
    with pytest.raises(RecipeError, match="the run is not finished"):
        read_training_seconds(TrainingCost(runs=[history(tmp_path / "run", {"step": 1})]))
