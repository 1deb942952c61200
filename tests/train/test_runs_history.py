"""``history.jsonl``: on disk as the run goes on, whole after a resume, and JSON throughout."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from tureen_train.runs.history import History, average_losses


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


def test_the_start_is_evaluated_once(tmp_path: Path) -> None:
    for step, evaluates in ((0, True), (2, False)):
        arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, eval_strategy="steps", eval_on_start=True)
        History(tmp_path / "history.jsonl").on_train_begin(arguments, TrainerState(global_step=step), TrainerControl())
        assert arguments.eval_on_start is evaluates


def test_losses_are_logged_before_a_checkpoint_and_at_the_end(tmp_path: Path, arguments: TrainingArguments) -> None:
    callback = History(tmp_path / "history.jsonl")
    for step, saves, logs in ((1, False, False), (2, True, True), (3, False, False), (4, False, True)):
        control = TrainerControl(should_save=saves)
        callback.on_step_end(arguments, TrainerState(global_step=step, max_steps=4), control)
        assert control.should_log is logs


def test_the_mean_loss_is_that_of_all_steps(tmp_path: Path, arguments: TrainingArguments) -> None:
    """Of the library's number the steps before the checkpoint are missing."""
    entries = [{"loss": 2.0, "step": 1}, {"eval_loss": 9.0, "step": 1}, {"loss": 1.0, "step": 3}]
    assert average_losses(entries) == pytest.approx(4 / 3)
    state, callback = TrainerState(log_history=entries), History(tmp_path / "history.jsonl")
    callback.on_train_begin(arguments, state, TrainerControl())
    logged(state, callback, arguments, train_loss=0.25, step=3)
    assert read(callback.path)[-1] == {"train_loss": pytest.approx(4 / 3), "step": 3}


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
