"""Requests before they are sent: method, path, headers and body. No network and no clock."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import IO, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from tureen.errors import (
    Unprocessable,
)
from tureen.retry import Deadline
from tureen.validation import explain_errors
from tureen.wire import TIMEOUT_HEADER

B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True)
class Form:
    """A file to be sent as a part of a form, with the form's other fields. A file that is open is sent from its start.

    Attributes:
        name: what the file is called.
        boundary: what stands between the parts.
    """

    name: str
    file: IO[bytes] | bytes
    fields: Mapping[str, str]
    boundary: str = field(default_factory=lambda: token_hex(16))


@dataclass(frozen=True)
class Download:
    """Where a successful response's body is to be written, and until when."""

    path: Path
    until: Deadline


@dataclass(frozen=True)
class HttpRequest:
    """A request to be sent.

    Attributes:
        path: below the server's address.
        body: JSON, or None for none.
        delay: seconds to wait before sending.
        timeout: seconds to wait for the answer.
        stream: leave a successful response's body unread.
        key: the server does only once what is sent with the same one.
        form: what is sent instead of a body.
        into: where a successful response's body goes instead of into memory.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    body: bytes | None = None
    delay: float = 0.0
    timeout: float = 600.0
    stream: bool = False
    key: str | None = None
    form: Form | None = None
    into: Download | None = None

    def headers(self) -> dict[str, str]:
        """What this request carries beside :func:`headers`.

        It tells the server how long the answer is waited for, so that it drops what comes too late.
        """
        told = {TIMEOUT_HEADER: str(max(1, int(self.timeout * 1000)))}
        if self.key is not None:
            told["idempotency-key"] = self.key
        if self.form is not None:
            told["content-type"] = f"multipart/form-data; boundary={self.form.boundary}"
        return told


def build_headers(key: str | None) -> dict[str, str]:
    """What every request carries."""
    fixed = {"user-agent": f"tureen-python/{version('tureen')}", "content-type": "application/json"}
    return fixed | ({"authorization": f"Bearer {key}"} if key else {})


def check_fields(kind: type[B], fields: Mapping[str, object]) -> B:
    """A request of ``kind``, or a part of one.

    Raises:
        Unprocessable: a field has a value that it cannot have; ``param`` names it.
    """
    # Whatever can be iterated may stand for a list, and is read once: here, so that an error can be placed in it.
    document = {name: _listed(value) for name, value in fields.items()}
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise explain_errors(error.errors(), document) from None


def _listed(value: object) -> object:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | Mapping | BaseModel) else value


def build_body(kind: type[BaseModel], fields: Mapping[str, object]) -> bytes:
    """The body of a request of ``kind``: only what was said, so that the server's defaults hold.

    Raises:
        Unprocessable: a field has a value that it cannot have; ``param`` names it.
    """
    return check_fields(kind, fields).model_dump_json(exclude_unset=True).encode()


def encode_json(value: object) -> bytes:
    """JSON of anything, checked or not. Lone surrogates are escaped, so that the server can tell of them.

    Raises:
        Unprocessable: a part of it has no form in JSON.
    """
    return json.dumps(value, default=_plain).encode()


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    raise Unprocessable(f"{type(value).__name__} is not JSON: send texts, numbers, lists and maps")
