"""Read items, each with its place, from JSON Lines, JSON lists, CSV, TSV, gzip, Parquet and saved datasets."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen.errors import TureenError, Unprocessable
from tureen.item_forms import DEFAULT, FORM, RowReading, check_fields, make_item
from tureen.item_positions import find_item_index
from tureen.records import containers
from tureen.records.schema import DataError, EmptyFile
from tureen.wire import ScoreItem

LINES = (".jsonl", ".ndjson")
FOLDER = "folder"
TYPED = (FOLDER, "parquet")


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
    unit = find_unit(path)
    rows = [_row(raw, f"{path}, {unit} {number}", reading) for number, raw in iterate_items(path)]
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
    """Yield each item with its number from 1: the line number in JSON Lines and tables, else the item number.

    The containers are those of :mod:`tureen.records.containers`. A line that cannot be decoded is yielded as an error.

    Raises:
        Unprocessable: the whole file is invalid, or needs a package that is not installed.
        OSError: the file cannot be opened.
    """
    with _readable():
        container = _find_container(path)
        if container is not None:
            _, rows = containers.open_rows(path, container=container)
            yield from ((number, _bare(row) if container in TYPED else row) for number, row in rows)


def count_items(path: Path) -> int:
    """Return how many items :func:`iterate_items` will yield, for a progress bar."""
    with _readable():
        container = _find_container(path)
        return 0 if container is None else containers.count_rows(path, container)


def find_unit(path: Path) -> str:
    """Return what the items of a file are counted by, ``line`` or ``item``."""
    with _readable():
        return "line" if _find_container(path) in ("lines", "table") and path.suffix != ".json" else "item"


def compute_digest(path: Path) -> str:
    """Compute the SHA-256 of a file, or of a saved dataset.

    Raises:
        Unprocessable: it cannot be read.
    """
    try:
        return containers.compute_digest(path)
    except DataError as error:
        raise Unprocessable(str(error)) from error


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
def _readable() -> Iterator[None]:
    """Turn the errors of a damaged file into an ``Unprocessable``."""
    try:
        yield
    except DataError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
            raise error.__cause__ from None
        raise Unprocessable(str(error)) from error


def _find_container(path: Path) -> str | None:
    """The container of a file, or None where it is empty. In JSON Lines by name a bad line spoils only itself."""
    if path.is_dir():
        return FOLDER
    if any(suffix in LINES for suffix in map(str.lower, path.suffixes)):
        return "lines"
    try:
        return containers.detect_container(path)
    except EmptyFile:
        return None


def _bare(value: Any) -> Any:
    """Remove the nulls that tables store for missing fields."""
    if isinstance(value, dict):
        return {name: _bare(each) for name, each in value.items() if each is not None}
    return [_bare(each) for each in value] if isinstance(value, list) else value
