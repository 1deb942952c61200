"""Read items, each with its place, from JSON Lines, JSON lists, CSV, TSV, gzip, Parquet and saved datasets."""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen.errors import TureenError, Unprocessable
from tureen.item_forms import DEFAULT, FORM, RowReading, check_fields, make_item
from tureen.item_positions import find_item_index
from tureen.json_lines import iterate_lines
from tureen.records import containers
from tureen.records.schema import DataError
from tureen.records.tables import is_table, read_table
from tureen.wire import ScoreItem


@dataclass(frozen=True)
class Row:
    """An item and its place: ``in.jsonl, line 7`` or ``in.json, item 7``, counted from 1.

    Attributes:
        id: the item's own id, if any; it is not sent to the server.
    """

    place: str
    item: Any
    id: str | int | None = None


def read_rows(path: Path, reading: RowReading = DEFAULT) -> list[Row]:
    """Read all items of a file.

    Args:
        path: the file.
        reading: how its rows become items.

    Raises:
        Unprocessable: the file or a line is invalid; the message says which.
        OSError: the file cannot be opened.
    """
    rows = [_row(raw, describe_place(path, number), reading) for number, raw in iterate_items(path)]
    if not rows:
        raise make_empty_file_error(path)
    return rows


def _row(raw: Any, where: str, reading: RowReading) -> Row:
    item = make_item(raw, reading).item
    if isinstance(item, TureenError):
        raise type(item)(f"{where}: {item.message}", param=item.param, code=item.code)
    try:
        check_fields(item, [*ScoreItem.model_fields, "id"])
    except Unprocessable as error:
        raise Unprocessable(f"{where}: {error.message}", param=error.param) from None
    name = item.get("id")
    if name is not None and (not isinstance(name, str | int) or isinstance(name, bool)):
        raise Unprocessable(f"{where}: id: must be a string or an integer", param="id")
    return Row(where, {field: value for field, value in item.items() if field != "id"}, name)


def iterate_items(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield each item with its number from 1: the line number in JSON Lines, the item number in other files.

    A line that is not JSON is yielded as an error.

    Raises:
        Unprocessable: the whole file is invalid, or needs a package that is not installed.
        OSError: the file cannot be opened.
    """
    with _readable(path):
        if path.is_dir():
            yield from enumerate((_bare(row) for row in containers.open_dataset(path)[0]), 1)
        elif path.suffix == ".parquet":
            batches = _parquet(path).iter_batches(batch_size=1024)
            yield from enumerate((_bare(row) for batch in batches for row in batch.to_pylist()), 1)
        elif path.suffix == ".json":
            yield from enumerate(_listed(path), 1)
        elif is_table(path):
            yield from read_table(path)
        else:
            with _opened(path) as lines:
                yield from ((number, _decoded(line)) for number, line in iterate_lines(lines))


def count_items(path: Path) -> int:
    """Return how many items :func:`iterate_items` will yield, for a progress bar."""
    with _readable(path):
        if path.is_dir():
            return len(containers.open_dataset(path)[0])
        if path.suffix == ".parquet":
            return int(_parquet(path).metadata.num_rows)
        if path.suffix == ".json":
            return len(_listed(path))
        if is_table(path):
            return sum(1 for _ in read_table(path))
        with _opened(path) as lines:
            return sum(1 for _ in iterate_lines(lines))


def describe_place(path: Path, number: int) -> str:
    """Return an item's place for a message: ``in.jsonl, line 7``."""
    return f"{path}, {'item' if path.is_dir() or path.suffix in ('.json', '.parquet') else 'line'} {number}"


def compute_digest(path: Path) -> str:
    """Compute the SHA-256 of a file, or of a saved dataset.

    Raises:
        Unprocessable: it cannot be read.
    """
    with _readable(path):
        return containers.compute_digest(path)


def make_empty_file_error(path: Path) -> Unprocessable:
    """Return the error for a file without items."""
    return Unprocessable(f"{path} holds no items; write one item per line, as {FORM}", code="empty_file")


@contextmanager
def name_rows_in_errors(rows: Sequence[Row]) -> Iterator[None]:
    """Name a row's place instead of its item index in an error raised inside."""
    try:
        yield
    except TureenError as error:
        index = find_item_index(error.param)
        if index is None:
            raise
        problem = error.message.removeprefix(f"items[{index}]").lstrip(".: ")
        raise type(error)(
            f"{rows[index].place}: {problem}", param=error.param, code=error.code, request_id=error.request_id
        ) from error


# --------------------------------------------------------------------------- containers


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged file into an ``Unprocessable``."""
    try:
        yield
    except DataError as error:
        raise Unprocessable(str(error)) from error
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:  # pyarrow's are ValueErrors
        raise Unprocessable(f"{path} is damaged, or not of the type in its name: {error}") from error


def _listed(path: Path) -> list[Any]:
    document = _decoded(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    if isinstance(document, TureenError):
        raise Unprocessable(f"{path}: {document}")
    items = document.get("items") if isinstance(document, dict) else document
    if not isinstance(items, list):
        raise Unprocessable(f"{path} holds no list of items: name it .jsonl if it has one item per line")
    return items


def _opened(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _decoded(line: bytes) -> Any:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Unprocessable(f"this is not UTF-8: byte {error.start} cannot be read", code="invalid_json")
    except (ValueError, RecursionError) as error:
        return Unprocessable(f"this is not JSON: {error}", code="invalid_json")


def _parquet(path: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile  # optional: the client works without it
    except ImportError:
        raise Unprocessable("Parquet needs pyarrow: pip install pyarrow, or use JSON Lines") from None
    return ParquetFile(path)


def _bare(value: Any) -> Any:
    """Remove the nulls that tables store for missing fields."""
    if isinstance(value, dict):
        return {name: _bare(each) for name, each in value.items() if each is not None}
    return [_bare(each) for each in value] if isinstance(value, list) else value
