"""Files and folders that hold records: JSON lists, JSON Lines, gzip of both, Parquet, Hugging Face datasets on disk.

What a file is shows in its first bytes; its name is not asked. Each reader streams (source, decoded object); an
object that cannot be decoded is given as the :class:`BadRecord` that says why, so that the next can be read.
"""

import codecs
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from tureen.records.schema import BadFile, BadOption, BadRecord

Row = tuple[str, object]

GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
SNIFFED = 4096
BLANK = re.compile(r"[ \t\r\n]*")


def read_rows(path: Path, split: str | None = None) -> Iterator[Row]:
    """The records of a file or folder, in order.

    Args:
        path: a file in any container, or a folder that ``datasets`` saved.
        split: which one, for a saved ``DatasetDict``.

    Yields:
        Where the record stands (``file:line`` or ``file[index]``) and what stands there.

    Raises:
        BadFile: the path is missing, damaged or in no known container.
        BadOption: a split is asked for that is not there, or none where there are several.
    """
    if path.is_dir():
        yield from _dataset(path, split)
        return
    if split is not None:
        raise BadOption(f"{path} is a file and has no splits; leave split={split!r} out")
    yield from CONTAINERS[detect_container(path)](path)


def detect_container(path: Path) -> str:
    """The container of a file: a key of :data:`CONTAINERS`.

    Raises:
        BadFile: it is none of them.
    """
    with _opened(path) as stream:
        head = stream.peek(SNIFFED)
    if head.startswith(PARQUET):
        return "parquet"
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text:
        raise BadFile(f"{path} is empty")
    if text[:1] not in (b"[", b"{"):
        raise BadFile(
            f"{path} is no JSON in UTF-8, JSON Lines, gzip of those, or Parquet: it begins with {text[:16]!r}"
        )
    if text[:1] == b"[":
        return "list"
    return "object" if text.splitlines()[0].strip() == b"{" else "lines"


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
        raise _unreadable(path, error) from error


def _lines(path: Path) -> Iterator[Row]:
    with _opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if content.strip():
                yield f"{path}:{number}", _decoded(content)


def _object(path: Path) -> Iterator[Row]:
    """One object over several lines: valid JSON, though hardly what somebody meant."""
    with _opened(path) as stream:
        yield f"{path}[0]", _decoded(stream.read().removeprefix(codecs.BOM_UTF8))


def _list(path: Path) -> Iterator[Row]:
    with _opened(path) as stream:
        content = stream.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path} is not UTF-8 at byte {error.start}") from None
    at, index = _skip(text, text.index("[") + 1), 0
    while not text.startswith("]", at):
        source = f"{path}[{index}]"
        item, end = _element(text, at, source)
        yield source, item
        at, index = _past_comma(text, end, source), index + 1
    if _skip(text, at + 1) < len(text):
        raise BadFile(f"{path} goes on after its list ends, at character {at + 1}")


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException  # optional: a client without it reads the other containers
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise BadFile(f"{path}: Parquet needs pyarrow: pip install pyarrow, or use JSON Lines") from None
    try:
        with ParquetFile(path) as file:
            items = (item for batch in file.iter_batches(batch_size=1024) for item in batch.to_pylist())
            for index, item in enumerate(items):
                yield f"{path}[{index}]", item
    except (ArrowException, OSError) as error:
        raise BadFile(f"{path} is a damaged Parquet file: {error}") from error


def _dataset(path: Path, split: str | None) -> Iterator[Row]:
    if not (path / "dataset_dict.json").is_file() and not (path / "state.json").is_file():
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
    for index, item in enumerate(saved):
        yield f"{path}[{index}]", item


CONTAINERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "list": _list,
    "lines": _lines,
    "object": _object,
    "parquet": _parquet,
}


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    """The file's bytes, unpacked where it is gzip."""
    try:
        with path.open("rb") as raw:
            if raw.peek(len(GZIP)).startswith(GZIP):
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked
            else:
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadFile(f"{path} is a damaged or truncated gzip file: {error}") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> BadFile:
    return BadFile(f"cannot read {path}: {error.strerror or error}")


class _Repeated(ValueError):
    """An object names one key twice, of which a reader would silently lose one."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Repeated(next(name for name in names if names.count(name) > 1))
    return made


STRICT = json.JSONDecoder(object_pairs_hook=_unique)
LENIENT = json.JSONDecoder()


def _decoded(line: bytes) -> object:
    try:
        return STRICT.decode(line.decode())
    except UnicodeDecodeError as error:
        return BadRecord("not UTF-8", f"at byte {error.start}")
    except _Repeated as error:
        return BadRecord("repeated key", f"`{error}` is named twice")
    except (ValueError, RecursionError) as error:
        return BadRecord("not JSON", str(error))


def _element(text: str, at: int, source: str) -> tuple[object, int]:
    """One element of a list and where it ends; what is no JSON hides where the next begins, so it is fatal."""
    try:
        try:
            return STRICT.raw_decode(text, at)
        except _Repeated as error:
            return BadRecord("repeated key", f"`{error}` is named twice"), LENIENT.raw_decode(text, at)[1]
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{source} is not JSON, or the file is truncated: {error}") from None


def _past_comma(text: str, at: int, source: str) -> int:
    at = _skip(text, at)
    if text.startswith("]", at):
        return at
    following = _skip(text, at + 1)
    if text.startswith(",", at) and not text.startswith("]", following):
        return following
    raise BadFile(
        f"after {source} comes {text[at : at + 16]!r} instead of ']' or ',' and another item; is the file truncated?"
    )


def _skip(text: str, at: int) -> int:
    found = BLANK.match(text, at)
    return found.end() if found else at


def _one_split(path: Path, names: list[str], split: str | None) -> str:
    if split is None and len(names) == 1:
        return names[0]
    if split not in names:
        raise BadOption(f"{path} has the splits {', '.join(names)}; name one of them, not {split!r}")
    return split
