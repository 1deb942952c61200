"""The files of a training run's folder, read for the reports. A file that is not there counts as empty."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tureen.records.schema import BadFile
from tureen_train.reports.plots import collect_points, read_accuracies, read_agreements

FILES = ("recipe.yaml", "metrics.json", "history.jsonl")
MOMENTS = ("_before", "_after")
Points = list[tuple[int, float]]


@dataclass(frozen=True)
class RunFolder:
    """The contents of a run's folder."""

    folder: Path
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    history: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The folder's name. Two runs of one recipe differ in it."""
        return self.folder.resolve().name

    def document(self, name: str) -> Any:
        """Read another JSON file of the folder; an empty dict if there is none."""
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Read a file of JSON Lines of the folder; no rows if there is none."""
        return _read_lines(self.folder / name)

    def losses(self) -> Points:
        """Return (optimiser step, training loss) of each logged loss."""
        return [(entry["step"], entry["loss"]) for entry in self.history if "loss" in entry]

    def accuracies(self) -> dict[str, Points]:
        """Return (optimiser step, pair accuracy) of each evaluation, by evaluation file."""
        return collect_points(self.history, read_accuracies)

    def agreements(self) -> dict[str, Points]:
        """Return (optimiser step, rank correlation) of each evaluation, by file, and by file and rating."""
        return collect_points(self.history, read_agreements)

    def summary(self) -> dict[str, Any]:
        """Return the trainer's final entry (seconds, mean loss), and the number of steps as ``steps``."""
        last: dict[str, Any] = next((entry for entry in reversed(self.history) if "train_runtime" in entry), {})
        steps = max((entry["step"] for entry in self.history), default=0)
        return {**last, "steps": steps}


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a training run."""
    return (folder / "recipe.yaml").is_file() or (folder / "history.jsonl").is_file()


def read_run(folder: Path) -> RunFolder:
    """Read a run's folder. The run need not have finished.

    Raises:
        BadFile: the folder has neither a recipe nor a history, or a file is damaged.
    """
    if not is_run(folder):
        raise BadFile(f"{folder} is not the folder of a training run: it has neither {FILES[0]} nor {FILES[2]}")
    try:
        recipe, metrics, history = (folder / name for name in FILES)
        return RunFolder(
            folder,
            (yaml.safe_load(recipe.read_text(encoding="utf-8")) if recipe.is_file() else None) or {},
            json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {},
            _read_lines(history),
        )
    except (ValueError, yaml.YAMLError) as error:
        raise BadFile(f"{folder}: a file of the run is damaged: {error}; run the recipe again") from error


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]


def flatten_keys(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a nested document with their dotted names. A list of plain values is one leaf."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from flatten_keys(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value):
        for index, each in enumerate(value):
            yield from flatten_keys(each, f"{name}.{index}")
    else:
        yield name, value


def flatten_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of one evaluation file that are numbers or null, by dotted name."""
    return {name: value for name, value in flatten_keys(metrics) if value is None or isinstance(value, int | float)}


def tabulate_figures(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the figures of evaluation files as the columns of a table.

    A file whose figures are told before and after training has a column for each.
    """
    columns: dict[str, dict[str, Any]] = {}
    for file, about in metrics.items():
        figures = flatten_figures(about)
        if figures and all(name.endswith(MOMENTS) for name in figures):
            for moment in MOMENTS:
                own = {name.removesuffix(moment): each for name, each in figures.items() if name.endswith(moment)}
                columns[f"{file}, {moment[1:]}"] = own
        else:
            columns[file] = figures
    return columns


def describe_dropped(about: Mapping[str, Any]) -> str:
    """Describe how many records and answers of a file were left out, by reason; an empty text if none were.

    Args:
        about: a file's entry in ``data.json``.
    """
    found = [(reason, count) for key in ("dropped", "dropped_answers") for reason, count in about.get(key, {}).items()]
    return ", ".join(f"{count} {reason}" for reason, count in found)


def format_cell(value: Any) -> str:
    """Format a value for a cell of a table."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
