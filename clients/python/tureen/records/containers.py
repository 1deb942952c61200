"""Files and folders that hold records: JSON lists, JSON Lines, CSV, TSV, gzip of these, Parquet, saved datasets.

What a file is shows in its first bytes; only a table of text is known by its name. Each reader streams (number,
decoded object); an object that cannot be decoded is given as the :class:`BadRecord` that says why, so that the next
can be read.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tureen.records.openings import PROMPTS
from tureen.records.schema import BadFile, BadOption
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
        Where the record stands, see :func:`tureen.records.text_files.name_row`, and what stands there.

    Raises:
        BadFile: the path is missing, damaged or in no known container.
        BadOption: a split is asked for that is not there, or none where there are several.
    """
    if path.is_dir():
        saved, path = open_dataset(path, split)
        rows: Iterator[Row] = enumerate(saved, 1)
    elif split is not None:
        raise BadOption(f"{path} is a file and has no splits; leave split={split!r} out")
    else:
        container = detect_container(path)
        rows = CONTAINERS[container](path)
        rows = _unwrap(path, rows) if container in ("object", "lines") else rows
    for number, item in rows:
        yield name_row(path, number), item


def _unwrap(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows; where the only one is an object with a list of records, the records.

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
    """The only key of an object that holds a list of records. What has a prompt is a record itself."""
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
    """The container of a file: a key of :data:`CONTAINERS`.

    Raises:
        BadFile: it is none of them.
    """
    with open_bytes(path) as stream:
        head = stream.peek(SNIFFED)
    if head.startswith(PARQUET):
        return "parquet"
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        raise BadFile(f"{path} is empty")
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
    """The SHA-256 of a file, or of the names and digests of a folder's files.

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


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException  # optional: a client without it reads the other containers
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise BadFile(f"{path}: Parquet needs pyarrow: pip install pyarrow, or use JSON Lines") from None
    try:
        with ParquetFile(path) as file:
            items = (item for batch in file.iter_batches(batch_size=1024) for item in batch.to_pylist())
            yield from enumerate(items, 1)
    except (ArrowException, OSError) as error:
        raise BadFile(f"{path} is a damaged Parquet file: {error}") from error


def is_saved_dataset(path: Path) -> bool:
    """Whether ``datasets`` saved a ``Dataset`` or a ``DatasetDict`` in a folder."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def list_splits(path: Path) -> list[str]:
    """List the splits of a saved ``DatasetDict``. A saved ``Dataset`` has none.

    Raises:
        BadFile: the list is damaged.
    """
    try:
        return list(json.loads((path / "dataset_dict.json").read_bytes())["splits"])
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{path} is a damaged dataset: dataset_dict.json does not list its splits") from error


def open_dataset(path: Path, split: str | None = None) -> tuple[Any, Path]:
    """Open a dataset that ``datasets`` saved. Returns its rows, and its path with the split for their places.

    Raises:
        BadFile: the folder holds no dataset, the dataset is damaged, or the package is not installed.
        BadOption: see :func:`read_rows`.
    """
    if not is_saved_dataset(path):
        raise BadFile(f"{path} is a folder, and no Hugging Face dataset was saved in it")
    try:
        from datasets import DatasetDict, load_from_disk  # takes seconds and pandas: only for those who read one
        from pyarrow import ArrowException
    except ImportError:
        raise BadFile(f"{path}: a saved dataset needs the package datasets: pip install datasets") from None
    try:
        saved = load_from_disk(str(path))
    except (ArrowException, OSError, ValueError) as error:
        raise BadFile(f"{path} is a damaged dataset: {error}") from error
    if isinstance(saved, DatasetDict):
        name = _one_split(path, list(saved), split)
        saved, path = saved[name], path / name
    elif split is not None:
        raise BadOption(f"{path} is one dataset without splits; leave split={split!r} out")
    return saved, path


CONTAINERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "list": read_list,
    "lines": read_lines,
    "object": read_object,
    "table": read_table,
    "parquet": _parquet,
}


def _one_split(path: Path, names: list[str], split: str | None) -> str:
    if split is None and len(names) == 1:
        return names[0]
    if split not in names:
        named = f"; {split!r} is none of them" if split else ""
        raise BadOption(
            f"{path} has the splits {', '.join(names)}{named}; name one, or give its folder, as {path / names[0]}"
        )
    return split
