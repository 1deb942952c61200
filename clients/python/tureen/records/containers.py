"""Files and folders that hold records: JSON lists, JSON Lines, CSV, TSV, gzip of these, Parquet, saved datasets.

The first bytes of a file show its container; only a table of text is known by its name. Each reader yields pairs
(number, decoded object). In the place of an object that cannot be decoded it yields a :class:`BadRecord` with the
reason, and reads on.
"""

import codecs
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from tureen.json_lines import iterate_lines
from tureen.records.openings import PROMPTS
from tureen.records.saved_datasets import open_dataset
from tureen.records.schema import BadFile, BadOption, EmptyFile
from tureen.records.tables import is_table, read_table
from tureen.records.text_files import (
    Row,
    describe_unreadable,
    name_row,
    open_bytes,
    read_lines,
    read_list,
    read_object,
)

PARQUET = b"PAR1"
SNIFFED = 4096
OPENED = re.compile(rb"""\{[ \t]*("[^"\\]*"[ \t]*:[ \t]*[\[{][ \t]*)?\r?\n""")  # an object that goes on below
WRAPPERS = ("data", "items", "rows", "records", "examples", "instances", "samples", "train")


def read_rows(path: Path, split: str | None = None) -> Iterator[tuple[str, object]]:
    """Read the records of a file or folder, in order.

    Args:
        path: a file in any container, or a folder that ``datasets`` saved.
        split: which one, for a saved ``DatasetDict``.

    Yields:
        The place of the record, see :func:`tureen.records.text_files.name_row`, and the decoded record.

    Raises:
        BadFile: the path is missing, damaged or in no known container.
        BadOption: a split is asked for that is not there, or none where there are several.
    """
    path, rows = open_rows(path, split)
    for number, item in rows:
        yield name_row(path, number), item


def open_rows(path: Path, split: str | None = None, container: str | None = None) -> tuple[Path, Iterator[Row]]:
    """Open a file or folder, as :func:`read_rows`. Returns its path, with the split, and its numbered rows.

    Args:
        path: see :func:`read_rows`.
        split: see :func:`read_rows`.
        container: of a file: a key of :data:`CONTAINERS`, or else the one that :func:`detect_container` finds.
    """
    if path.is_dir():
        saved, path = open_dataset(path, split)
        return path, enumerate(saved, 1)
    if split is not None:
        raise BadOption(f"{path} is a file and has no splits; leave split={split!r} out")
    container = container or detect_container(path)
    rows = CONTAINERS[container](path)
    return path, _unwrap(path, rows) if container in ("object", "lines") else rows


def count_rows(path: Path, container: str | None = None) -> int:
    """Count the rows of a file or folder, see :func:`open_rows`. Lines are counted without being decoded.

    Raises:
        BadFile: see :func:`read_rows`.
    """
    if path.is_dir():
        return len(open_dataset(path)[0])
    container = container or detect_container(path)
    if container == "parquet":
        with open_parquet(path) as file:
            return int(file.metadata.num_rows)
    if container == "lines":
        with open_bytes(path) as stream:
            count = sum(1 for _ in iterate_lines(stream))
        if count > 1:
            return count
    return sum(1 for _ in open_rows(path, container=container)[1])


def _unwrap(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows. If the only row is an object with a list of records, yield these records.

    Raises:
        BadFile: this object has other keys, too.
    """
    first = next(rows, None)
    if first is None:
        return
    document: Any = first[1]
    name = _find_wrapper(document)
    second = next(rows, None) if name else None
    if name is None or second:
        yield from chain([first], [second] if second else [], rows)
        return
    others = ", ".join(f"`{key}`" for key in document if key != name)
    if others:
        raise BadFile(
            f"{path} is one object with records in `{name}` and the further keys {others}: write the list alone, or"
            " one record on each line"
        )
    yield from enumerate(document[name], 1)


def _find_wrapper(document: object) -> str | None:
    """Find the only key with a list of records in an object. An object with a prompt is a record itself."""
    if not isinstance(document, dict) or document.keys() & set(PROMPTS):
        return None
    found = [name for name in WRAPPERS if _are_records(document.get(name))]
    return found[0] if len(found) == 1 else None


def _are_records(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and not {"role", "from"} & each.keys() for each in value)
    )


def detect_container(path: Path) -> str:
    """Detect the container of a file: a key of :data:`CONTAINERS`.

    Raises:
        BadFile: it is none of them.
    """
    with open_bytes(path) as stream:
        head = stream.peek(SNIFFED)
    if head.startswith(PARQUET):
        return "parquet"
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        raise EmptyFile(f"{path} is empty")
    if is_table(path):
        return "table"
    if text[:1] not in (b"[", b"{"):
        raise BadFile(
            f"{path} is no JSON in UTF-8, JSON Lines, gzip of those, or Parquet: it begins with {text[:16]!r};"
            " a table of text is named .csv, .tsv or .psv"
        )
    if text[:1] == b"[":
        return "list"
    return "object" if OPENED.match(text) else "lines"


def compute_digest(path: Path) -> str:
    """Compute the SHA-256 of a file, or of the names and digests of a folder's files.

    Raises:
        BadFile: it cannot be read.
    """
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        listing = "\n".join(f"{compute_digest(each)}  {each.relative_to(path).as_posix()}" for each in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise describe_unreadable(path, error) from error


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """Open a Parquet file.

    Raises:
        BadFile: it is damaged, or pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException  # optional: a client without it reads the other containers
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise BadFile(f"{path}: Parquet needs pyarrow: pip install pyarrow, or use JSON Lines") from None
    try:
        with ParquetFile(path) as file:
            yield file
    except (ArrowException, OSError) as error:
        raise BadFile(f"{path} is a damaged Parquet file: {error}") from error


def _parquet(path: Path) -> Iterator[Row]:
    with open_parquet(path) as file:
        yield from enumerate((item for batch in file.iter_batches(batch_size=1024) for item in batch.to_pylist()), 1)


CONTAINERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "list": read_list,
    "lines": read_lines,
    "object": read_object,
    "table": read_table,
    "parquet": _parquet,
}
