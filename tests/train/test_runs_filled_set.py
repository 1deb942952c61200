"""Evaluation by two processes has the figures of one, also of files that do not fill the last batches."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from train.ranks import run_ranks
from train.tiny_runs import records, reward_recipe, untimed

from tureen_train.runs.filled_set import REAL, ROWS, FilledSet, collate_filled, fill_rows

METHODS: dict[str, dict[str, Any]] = {"ranking": {"lm_coefficient": 0.3}, "odin": {"method": "odin"}}


def test_a_set_is_filled_up_to_whole_batches_of_all_processes() -> None:
    filled = FilledSet([3, 4, 5], multiple=4)
    assert [filled[at] for at in range(len(filled))] == [3, 4, 5, None]
    assert len(FilledSet([3, 4, 5], multiple=1)) == 3


def test_a_batch_has_the_items_that_are_there_or_else_another_one() -> None:
    def collate(items: list[float]) -> dict[str, Any]:
        return {"values": torch.tensor(items)}

    batch = collate_filled(collate, 7.0, [3.0, None])
    assert (batch[REAL], batch[ROWS], batch["values"].tolist()) == (1, 2, [3.0])
    assert torch.isnan(fill_rows(batch["values"], 2)).tolist() == [False, True]
    empty = collate_filled(collate, 7.0, [None, None])
    assert (empty[REAL], empty[ROWS], empty["values"].tolist()) == (0, 2, [7.0])


def run_by(processes: int, base: Path, folder: Path, method: str) -> Path:
    """Some steps, and evaluations of five prompts in batches of four: in the last one the second process has none."""
    folder.mkdir()
    (folder / "held").mkdir()
    batch = 4 // processes
    optimisation = {"max_steps": 3, "warmup": 0.0, "batch": batch, "eval_batch": batch}
    raw = reward_recipe(base, folder, optimisation=optimisation, watch={"eval_every": 3})
    held = {"path": str(records(folder / "held", count=5, first=96))}
    raw["data"] |= {"holdout": 0, "eval_whole": True, "eval": {"odd": held}}
    raw["loss"] = METHODS[method]
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(raw))
    run_ranks(path, processes)
    return path.with_suffix("")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_judge_as_one_does(method: str, base: Path, tmp_path: Path) -> None:
    one, two = (run_by(count, base, tmp_path / str(count), method) for count in (1, 2))
    found, expected = (json.loads((each / "metrics.json").read_text())["odd"] for each in (two, one))
    assert found == pytest.approx(expected, abs=1e-4)
    found, expected = ([entry for entry in untimed(each) if "eval_odd_pairs" in entry] for each in (two, one))
    for own, other in zip(found, expected, strict=True):
        assert own == pytest.approx(other, abs=1e-4)
    assert sum("eval_odd_loss" in entry for entry in found) == 2  # before the training and after it
