"""Records in files of text: JSON Lines, one JSON object, and a JSON list, each plain or as gzip."""

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from tureen.json_lines import LENIENT, STRICT, RepeatedKey, decode_json, iterate_lines
from tureen.records.schema import BadFile, BadRecord

Row = tuple[int, object]  # the number of a line or of an item, from 1, and what stands there

GZIP = b"\x1f\x8b"
BLANK = re.compile(r"[ \t\r\n]*")


def name_row(path: Path | str, number: int) -> str:
    """Name the place of a row: ``file:7``, the line of a file with a row on each line, else the item. Both from 1."""
    return f"{path}:{number}"


@contextmanager
def open_bytes(path: Path) -> Iterator[BufferedReader | gzip.GzipFile]:
    """Open a file's bytes. Gzip is unpacked."""
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
        raise describe_unreadable(path, error) from error


def describe_unreadable(path: Path, error: OSError) -> BadFile:
    return BadFile(f"cannot read {path}: {error.strerror or error}")


def read_lines(path: Path) -> Iterator[Row]:
    """Read JSON Lines."""
    with open_bytes(path) as stream:
        for number, line in iterate_lines(stream):
            yield number, _decoded(line)


def read_object(path: Path) -> Iterator[Row]:
    """Read a file with one JSON object over several lines."""
    with open_bytes(path) as stream:
        yield 1, _decoded(stream.read().removeprefix(codecs.BOM_UTF8))


def read_list(path: Path) -> Iterator[Row]:
    """Read the elements of a JSON list, one after another."""
    with open_bytes(path) as stream:
        content = stream.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path} is not UTF-8 at byte {error.start}") from None
    at, number = _skip(text, text.index("[") + 1), 1
    while not text.startswith("]", at):
        source = name_row(path, number)
        item, end = _element(text, at, source)
        yield number, item
        at, number = _past_comma(text, end, source), number + 1
    if _skip(text, at + 1) < len(text):
        raise BadFile(f"{path} goes on after its list ends, at character {at + 1}")


def _decoded(line: bytes) -> object:
    try:
        return decode_json(line.decode())
    except UnicodeDecodeError as error:
        return BadRecord("not UTF-8", f"at byte {error.start}")
    except RepeatedKey as error:
        return BadRecord("repeated key", f"`{error}` is named twice")
    except (ValueError, RecursionError) as error:
        return BadRecord("not JSON", str(error))


def _element(text: str, at: int, source: str) -> tuple[object, int]:
    """Decode one element of a list. Returns it and its end. Invalid JSON is fatal: the next element is not found."""
    try:
        try:
            return STRICT.raw_decode(text, at)
        except RepeatedKey as error:
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
