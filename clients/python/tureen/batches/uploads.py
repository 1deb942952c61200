"""The form of an upload: a file, bytes, or an iterable of lines. It is never loaded into memory as a whole."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from pydantic import BaseModel

from tureen.errors import InvalidRequest
from tureen.http_requests import Form, encode_json

Part = bytes | str | Mapping[str, Any] | BaseModel
Source = str | Path | bytes | Iterable[Part]

NAME = "batch.jsonl"


@contextmanager
def open_form(source: Source, name: str | None, expires_after: int | None) -> Iterator[Form]:
    """Open the form that uploads ``source``.

    An iterable is first written to a temporary file, so that a failed upload can be repeated.

    Args:
        source: the path of a file, its bytes, or an iterable of its parts. Parts that are bytes or texts are not
            changed; a part that is a dict or a ``wire.InputLine`` becomes a line.
        name: the file's name on the server; by default its name on the disk.
        expires_after: the server deletes the file after this time, in seconds.

    Raises:
        InvalidRequest: a part has another type.
        Unprocessable: a part cannot be written as JSON.
        OSError: the file cannot be read, or the temporary file cannot be written.
    """
    fields = {"purpose": "batch"}
    if expires_after is not None:
        fields |= {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(expires_after)}
    if isinstance(source, bytes):
        yield Form(name or NAME, source, fields)
    elif isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            yield Form(name or Path(source).name, file, fields)
    else:
        with _spooled(source) as file:
            yield Form(name or NAME, file, fields)


@contextmanager
def _spooled(parts: Iterable[Part]) -> Iterator[IO[bytes]]:
    with TemporaryFile() as file:
        file.writelines(_bytes(part) for part in parts)
        file.flush()
        yield file


def _bytes(part: Part) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, Mapping | BaseModel):
        return encode_json(part) + b"\n"
    raise InvalidRequest(f"a line must be bytes, a text or a dict, not {type(part).__name__}", param="file")
