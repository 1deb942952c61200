"""``history.jsonl``: every entry of a run's log, one line each, on disk while the run goes on."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from tureen_train.measures.non_finite import replace_non_finite


class History(TrainerCallback):
    """Writes the trainer's log into the file, and restores the file when a run is resumed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Start the file with the log of the resumed checkpoint, or empty."""
        if state.is_world_process_zero:
            self.path.write_text("".join(map(_line, state.log_history)))

    def on_log(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Append the latest entry."""
        if state.is_world_process_zero:
            with self.path.open("a") as file:
                file.write(_line(state.log_history[-1]))


@dataclass
class Journal:
    """The same file for a run without the library's trainer."""

    path: Path
    entries: list[dict[str, Any]] = field(default_factory=list)

    def log(self, entry: dict[str, Any]) -> None:
        """Write one entry; the first one replaces the file of an earlier run."""
        with self.path.open("a" if self.entries else "w") as file:
            file.write(_line(entry))
        self.entries.append(entry)


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(replace_non_finite(entry)) + "\n"
