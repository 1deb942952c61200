"""``history.jsonl``: on disk as the run goes on, whole after a resume, and JSON throughout."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from tureen_train.runs.history import History


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def logged(state: TrainerState, callback: History, arguments: TrainingArguments, **entry: float) -> None:
    """As ``Trainer.log`` does it."""
    state.log_history.append(entry)
    callback.on_log(arguments, state, TrainerControl(), logs=entry)


def test_every_entry_is_on_disk_at_once(tmp_path: Path, arguments: TrainingArguments) -> None:
    path, state = tmp_path / "history.jsonl", TrainerState()
    callback = History(path)
    callback.on_train_begin(arguments, state, TrainerControl())
    assert read(path) == []
    for step in range(3):
        logged(state, callback, arguments, loss=1.0 / (step + 1), step=step)
        assert read(path) == state.log_history


def test_a_resumed_run_goes_on_from_what_its_checkpoint_remembers(tmp_path: Path, arguments: TrainingArguments) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    state, callback = TrainerState(log_history=[{"step": 1}, {"step": 2}]), History(path)
    callback.on_train_begin(arguments, state, TrainerControl())
    logged(state, callback, arguments, step=3, loss=0.5)
    assert read(path) == [{"step": 1}, {"step": 2}, {"step": 3, "loss": 0.5}]


def test_a_new_run_forgets_an_older_one(tmp_path: Path, arguments: TrainingArguments) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 99}\n')
    History(path).on_train_begin(arguments, TrainerState(), TrainerControl())
    assert read(path) == []


def test_one_rank_writes(tmp_path: Path, arguments: TrainingArguments) -> None:
    path, state = tmp_path / "history.jsonl", TrainerState(is_world_process_zero=False)
    callback = History(path)
    callback.on_train_begin(arguments, state, TrainerControl())
    logged(state, callback, arguments, loss=1.0)
    assert not path.exists()
