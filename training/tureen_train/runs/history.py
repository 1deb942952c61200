"""``history.jsonl``: every entry of a run's log, one line each, on disk while the run goes on."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from tureen_train.measures.non_finite import replace_non_finite


class History(TrainerCallback):
    """Writes the trainer's log into the file, and restores the file when a run is resumed.

    A resumed run gets the log of an unbroken one. The library alone would forget the losses that were not yet logged
    at a checkpoint, count only the steps after it in ``train_loss``, and evaluate the start once more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Start the file with the log of the resumed checkpoint, or empty."""
        if state.global_step:
            args.eval_on_start = False  # that stands in the log already
        if state.is_world_process_zero:
            self.path.write_text("".join(map(_line, state.log_history)))

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Log before each checkpoint and at the end, so that no step is missing in what is resumed and summed."""
        if control.should_save or state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Append the latest entry. ``train_loss`` is the mean over all steps, also those before the checkpoint."""
        if "train_loss" in state.log_history[-1]:
            state.log_history[-1]["train_loss"] = average_losses(state.log_history)
        if state.is_world_process_zero:
            with self.path.open("a") as file:
                file.write(_line(state.log_history[-1]))


def average_losses(entries: Sequence[Mapping[str, Any]]) -> float:
    """Average the losses of all steps. An entry has the mean ``loss`` of the steps since the entry before it."""
    total, done = 0.0, 0
    for entry in entries:
        if "loss" in entry:
            total, done = total + entry["loss"] * (entry["step"] - done), entry["step"]
    return total / done if done else math.nan


@dataclass
class Journal:
    """The same file for a run without the library's trainer. Without a path, entries are kept and not written."""

    path: Path | None
    entries: list[dict[str, Any]] = field(default_factory=list)

    def log(self, entry: dict[str, Any]) -> None:
        """Write one entry; the first one replaces the file of an earlier run."""
        self.entries.append(entry)
        if len(self.entries) == 1:
            self.rewrite()
        elif self.path is not None:
            with self.path.open("a") as file:
                file.write(_line(entry))

    def restore(self, entries: list[dict[str, Any]]) -> None:
        """Go on from the entries of an earlier, broken run. The file gets them, and loses all later ones."""
        self.entries = list(entries)
        self.rewrite()

    def rewrite(self) -> None:
        """Write the file anew."""
        if self.path is not None:
            self.path.write_text("".join(map(_line, self.entries)))


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(replace_non_finite(entry)) + "\n"
