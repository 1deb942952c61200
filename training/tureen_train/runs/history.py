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
