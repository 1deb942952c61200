"""``history.jsonl``: every figure a trainer logs, a line each, on disk while the run goes on."""

import json
import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState


class History(TrainerCallback):
    """Keeps a file equal to the trainer's log, also where a run is resumed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Begin with what a checkpoint remembers; nothing, where none is resumed."""
        if state.is_world_process_zero:
            self.path.write_text("".join(map(_line, state.log_history)))

    def on_log(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Append the newest entry."""
        if state.is_world_process_zero:
            with self.path.open("a") as file:
                file.write(_line(state.log_history[-1]))


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(plain(entry)) + "\n"


def plain(value: Any) -> Any:
    """The same as JSON can say it: a number that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
