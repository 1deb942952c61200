"""What is uploaded: a file, bytes, or lines that are made one by one. None of it is ever whole in memory."""

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
    """The form that uploads ``source``. An iterator is read to its end first, so that a failed upload can be repeated.

    Args:
        source: the path of a file, its bytes, or its parts. Bytes and texts among the parts are taken as they are;
            everything else is a line, such as a dict or a ``wire.InputLine``.
        name: what the file is called; as on the disk by default.
        expires_after: seconds after which the server lets go of it.

    Raises:
        Unprocessable: a part has no form in JSON.
        OSError: a file cannot be read, or the parts cannot be written beside it.
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
    raise InvalidRequest(f"{type(part).__name__} is no line: give bytes, texts, or dicts", param="file")
