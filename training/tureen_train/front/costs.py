"""What training a method cost, from its run folders."""

from pathlib import Path

from tureen.json_lines import decode_json
from tureen_train.config import RecipeError
from tureen_train.config.fronts import TrainingCost


def read_training_seconds(cost: TrainingCost) -> float | None:
    """The seconds of training; None where nothing tells them.

    They are those of the trainers, of all rounds; the time in which a run wrote and rewarded answers is not told. A run
    that was resumed tells the seconds of its last part only.

    Raises:
        RecipeError: a folder has no history of a finished run.
    """
    if not cost.runs:
        return cost.seconds
    return sum(_read_run(Path(folder)) for folder in cost.runs)


def _read_run(folder: Path) -> float:
    path = folder / "history.jsonl"
    if not path.is_file():
        raise RecipeError(f"methods: cost.runs: {folder} is no run folder: it has no history.jsonl")
    rows = [decode_json(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    found = [float(row["train_runtime"]) for row in rows if "train_runtime" in row]
    if not found:
        raise RecipeError(f"methods: cost.runs: {folder} does not tell how long it trained: the run is not finished")
    return sum(found)
