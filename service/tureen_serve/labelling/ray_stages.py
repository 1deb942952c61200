"""The stages of the Ray pipeline: tasks that read lines, and actors that label them. Rows are tables of :data:`SCHEMA`.

In a row, ``label`` is the label as JSON, ``error`` says why there is no label, and ``models`` holds the fingerprints
and weights of the rewards as JSON.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from tureen.item_forms import DEFAULT, RowReading
from tureen.labelling import items, labelling_run
from tureen.labelling.labelling_run import Plan
from tureen_serve.labelling.labeller import Labeller
from tureen_serve.process_environment import stay_offline
from tureen_serve.settings import Settings

COLUMNS = ("id", "shard", "line", "item", "label", "error", "models")
SCHEMA = pyarrow.schema([(name, pyarrow.int64() if name == "line" else pyarrow.string()) for name in COLUMNS])
BLOCK_LINES = 256


class Lines(Datasource):  # type: ignore[misc]
    """Reads the lines of some files in blocks, with one task for each file.

    Args:
        files: the name of each shard, and its file.
        reading: how rows become items.
    """

    def __init__(self, files: Sequence[tuple[str, Path]], reading: RowReading = DEFAULT) -> None:
        super().__init__()
        self._files = files
        self._reading = reading

    def estimate_inmemory_data_size(self) -> int:
        """Return the size of the files in bytes."""
        return sum(_measure(path) for _, path in self._files)

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002
        per_task_row_limit: int | None = None,
        data_context: Any = None,  # noqa: ARG002
    ) -> list[ReadTask]:
        """Make a task for each file."""
        return [
            ReadTask(
                partial(_blocks, self._reading, *each),
                BlockMetadata(None, _measure(each[1]), [str(each[1])], None),
                SCHEMA,
                per_task_row_limit,
            )
            for each in self._files
        ]


def _measure(path: Path) -> int:
    """The size of a file, or of all files of a saved dataset, in bytes."""
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.rglob("*")))


def _blocks(reading: RowReading, shard: str, path: Path) -> Iterator[pyarrow.Table]:
    for lines in labelling_run.split_into_runs(items.read_items(path, reading), BLOCK_LINES):
        yield pyarrow.Table.from_pylist([_make_row(shard, line) for line in lines], SCHEMA)


def _make_row(shard: str, line: items.Line) -> dict[str, Any]:
    """Make the row of a line that has no label yet."""
    return {
        "id": f"{shard}:{line.number}",
        "shard": shard,
        "line": line.number,
        "item": line.item.model_dump_json(exclude_none=True) if line.item else None,
        "error": line.error.message if line.error else None,
    }


class Actor:
    """Labels rows with its own engine. The engine is loaded with the first rows, so that Ray reports its errors."""

    def __init__(self, settings: Settings, plan: Plan, models: dict[str, str]) -> None:
        stay_offline()
        self._settings, self._plan, self._models = settings, plan, models
        self._labeller: Labeller | None = None

    def __call__(self, rows: pyarrow.Table) -> pyarrow.Table:
        """Add the labels or errors to the rows."""
        if self._labeller is None:
            self._labeller = Labeller(self._settings, dict(self._plan.asked or {}), self._plan.recipe)
        given = rows.to_pylist()
        lines = (
            items.Line(place, row["id"], row["id"], items.Item.model_validate_json(row["item"]))
            for place, row in enumerate(given)
            if row["item"] is not None
        )
        for asked, reply in labelling_run.ask_in_runs(self._labeller, lines, self._plan, self._models):
            assert reply is not None  # every line has an item
            self._models = reply.fingerprint
            models = json.dumps({"fingerprint": reply.fingerprint, "preferences": reply.preferences})
            for line, each in labelling_run.match_labels(asked, reply):
                given[line.number] |= {"label": each.model_dump_json(exclude_none=True), "models": models}
                given[line.number]["error"] = each.error.message if each.error else None
        return pyarrow.Table.from_pylist(given, SCHEMA)
