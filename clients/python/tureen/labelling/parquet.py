"""Convert JSON Lines to Parquet by pyarrow, which is optional."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tureen.errors import Unprocessable

ROWS = 1024


def require_pyarrow() -> None:
    """Check that pyarrow is installed, before the work begins.

    Raises:
        Unprocessable: pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise Unprocessable("Parquet needs pyarrow: pip install pyarrow, or name the target .jsonl or .jsonl.gz")


def convert_to_parquet(lines: Path, target: Path) -> None:
    """Write JSON Lines as Parquet. All rows have the same columns. They are read twice, a batch at a time.

    The first reading finds the schema: a column of integers and fractions becomes one of fractions.
    """
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schemas = [pyarrow.Table.from_pylist(rows).schema for rows in _batches(lines)]
    schema = pyarrow.unify_schemas(schemas or [pyarrow.schema([])], promote_options="permissive")
    with ParquetWriter(target, schema) as writer:
        for rows in _batches(lines):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def _batches(lines: Path) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    with lines.open("rb") as stream:
        for line in stream:
            batch.append(json.loads(line))
            if len(batch) == ROWS:
                yield batch
                batch = []
    if batch:
        yield batch
