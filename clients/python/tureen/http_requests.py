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
    """A multipart form with one file. An open file is sent from its start.

    Attributes:
        name: the file's name.
        file: its content, open or as bytes.
        fields: the form's other fields.
        boundary: the separator between the parts.
    """

    name: str
    file: IO[bytes] | bytes
    fields: Mapping[str, str]
    boundary: str = field(default_factory=lambda: token_hex(16))


@dataclass(frozen=True)
class Download:
    """The file to write a successful response's body to, and the deadline for it."""

    path: Path
    until: Deadline


@dataclass(frozen=True)
class HttpRequest:
    """One request.

    Attributes:
        path: the path below the server's address.
        body: JSON, or None.
        delay: seconds to wait before sending.
        timeout: seconds to wait for the reply.
        stream: leave the body of a successful response unread.
        key: the idempotency key; the server acts only once on requests with the same key.
        form: a form to send instead of ``body``.
        into: the file to write a successful response's body to, instead of memory.
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
        """Return the headers of this request, beside those of :func:`build_headers`.

        The timeout header lets the server drop requests whose client no longer waits.
        """
        told = {TIMEOUT_HEADER: str(max(1, int(self.timeout * 1000)))}
        if self.key is not None:
            told["idempotency-key"] = self.key
        if self.form is not None:
            told["content-type"] = f"multipart/form-data; boundary={self.form.boundary}"
        return told


def build_headers(key: str | None) -> dict[str, str]:
    """Return the headers that every request has."""
    fixed = {"user-agent": f"tureen-python/{version('tureen')}", "content-type": "application/json"}
    return fixed | ({"authorization": f"Bearer {key}"} if key else {})


def check_fields(kind: type[B], fields: Mapping[str, object]) -> B:
    """Validate fields as a request of type ``kind``.

    Raises:
        Unprocessable: a field is invalid; ``param`` names it.
    """
    # Iterables are read once, here, so that an error can be located in them.
    document = {name: _listed(value) for name, value in fields.items()}
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise explain_errors(error.errors(), document) from None


def _listed(value: object) -> object:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | Mapping | BaseModel) else value


def build_body(kind: type[BaseModel], fields: Mapping[str, object]) -> bytes:
    """Return the JSON body of a request, with only the given fields: the server's defaults apply to the others.

    Raises:
        Unprocessable: a field is invalid; ``param`` names it.
    """
    return check_fields(kind, fields).model_dump_json(exclude_unset=True).encode()


def encode_json(value: object) -> bytes:
    """Encode any value as JSON. Lone surrogates are escaped, so that the server can report them.

    Raises:
        Unprocessable: a part cannot be written as JSON.
    """
    return json.dumps(value, default=_plain).encode()


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    raise Unprocessable(f"{type(value).__name__} is not JSON: send texts, numbers, lists and maps")
