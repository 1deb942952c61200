"""What runs on a Ray cluster: reading lines in tasks, and labelling them in actors. Rows are tables of :data:`SCHEMA`.

``label`` is a label as JSON, ``error`` why there is none, and ``models`` what labelled.
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
BLOCK = 256  # lines that are read at once


class Lines(Datasource):  # type: ignore[misc]
    """The lines of some files, a task each, in blocks as they are read.

    Args:
        files: each with the name of its shard.
        reading: how their rows become items.
    """

    def __init__(self, files: Sequence[tuple[str, Path]], reading: RowReading = DEFAULT) -> None:
        super().__init__()
        self._files = files
        self._reading = reading

    def estimate_inmemory_data_size(self) -> int:
        """The size of the files in bytes."""
        return sum(path.stat().st_size for _, path in self._files)

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002
        per_task_row_limit: int | None = None,
        data_context: Any = None,  # noqa: ARG002
    ) -> list[ReadTask]:
        """One for each file."""
        return [
            ReadTask(
                partial(_blocks, self._reading, *each),
                BlockMetadata(None, each[1].stat().st_size, [str(each[1])], None),
                SCHEMA,
                per_task_row_limit,
            )
            for each in self._files
        ]


def _blocks(reading: RowReading, shard: str, path: Path) -> Iterator[pyarrow.Table]:
    for some in labelling_run.split_into_runs(items.read_items(path, reading), BLOCK):
        yield pyarrow.Table.from_pylist([_unlabelled(shard, line) for line in some], SCHEMA)


def _unlabelled(shard: str, line: items.Line) -> dict[str, Any]:
    return {
        "id": f"{shard}:{line.number}",
        "shard": shard,
        "line": line.number,
        "item": line.item.model_dump_json(exclude_none=True) if line.item else None,
        "error": line.error.message if line.error else None,
    }


class Actor:
    """One engine, loaded when the first rows come, so that its refusal is the rows' and not a death."""

    def __init__(self, settings: Settings, plan: Plan, models: dict[str, str]) -> None:
        stay_offline()
        self._settings, self._plan, self._models = settings, plan, models
        self._labeller: Labeller | None = None

    def __call__(self, rows: pyarrow.Table) -> pyarrow.Table:
        """The rows with labels, and with errors where there can be none."""
        if self._labeller is None:
            self._labeller = Labeller(self._settings, dict(self._plan.asked or {}), self._plan.recipe)
        given = rows.to_pylist()
        lines = (
            items.Line(place, row["id"], row["id"], items.Item.model_validate_json(row["item"]))
            for place, row in enumerate(given)
            if row["item"] is not None
        )
        for some, reply in labelling_run.ask_in_runs(self._labeller, lines, self._plan, self._models):
            assert reply is not None  # all of them are items
            self._models = reply.fingerprint
            models = json.dumps({"fingerprint": reply.fingerprint, "preferences": reply.preferences})
            for line, each in labelling_run.match_labels(some, reply):
                given[line.number] |= {"label": each.model_dump_json(exclude_none=True), "models": models}
                given[line.number]["error"] = each.error.message if each.error else None
        return pyarrow.Table.from_pylist(given, SCHEMA)
