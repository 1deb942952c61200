"""The client's side of the wire without the network: requests as bytes, responses as typed replies or errors.

It knows neither sockets nor time, so that the blocking and the asynchronous client share all of it. A response is
httpx2's, which is plain data once it has been read.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import IO, Literal, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from tureen.errors import (
    BY_STATUS,
    ConnectionFailed,
    DeadlineExceeded,
    ServerFault,
    TureenError,
    Unprocessable,
    find_error_class,
)
from tureen.retry import Deadline
from tureen.validation import explain_errors
from tureen.wire import TIMEOUT_HEADER, ErrorDetail, ErrorReply

B = TypeVar("B", bound=BaseModel)

EXCERPT = 200

_BY_CODE = {error.code: error for error in BY_STATUS.values()}
_BY_TYPE = {error.type: error for error in reversed(BY_STATUS.values())}


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


# --------------------------------------------------------------------------- requests


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


# --------------------------------------------------------------------------- replies


def require_success(told: httpx2.Response | ConnectionFailed) -> httpx2.Response:
    """The response, if it is a success.

    Raises:
        TureenError: the server's error, or the one that stands for no response.
    """
    if isinstance(told, ConnectionFailed):
        raise told
    if not told.is_success:
        raise read_fault(told)
    return told


def parse_response(kind: type[B], response: httpx2.Response) -> B:
    """A successful response's reply.

    Raises:
        ServerFault: the body is something else.
    """
    return parse_json(kind, response.content)


def parse_json(kind: type[B], body: bytes | str) -> B:
    """A reply, or one event of a stream, from its JSON.

    Raises:
        ServerFault: it is something else.
    """
    try:
        document = from_json(body)
        return kind.model_validate(document)
    except ValidationError as error:
        problem = explain_errors(error.errors(), document).message
    except ValueError as error:
        problem = f"it is not JSON: {error}"
    raise ServerFault(f"the answer is no {kind.__name__}: {problem}", code="unreadable_reply")


def read_fault(response: httpx2.Response) -> TureenError:
    """The error that the server raised: the same class, with its message, field, code, Retry-After and request id.

    A proxy's 408 is a 504 to us: the same request may be sent again. A 409 may not: another model is loaded; or it
    tells by its Retry-After that the same request is being answered at the moment.
    """
    reply = _error_reply(response)
    kind = (
        DeadlineExceeded
        if response.status_code == HTTPStatus.REQUEST_TIMEOUT
        else find_error_class(response.status_code)
    )
    return kind(
        reply.error.message,
        param=reply.error.param,
        code=reply.error.code,
        retry_after=read_retry_after(response),
        request_id=reply.request_id or response.headers.get("x-request-id"),
    )


def _error_reply(response: httpx2.Response) -> ErrorReply:
    try:
        return ErrorReply.model_validate_json(response.content)
    except ValidationError:
        # A proxy in between, or another server altogether.
        said = " ".join(response.text.split())[:EXCERPT] or response.reason_phrase
        message = f"{response.request.url} answered {response.status_code}: {said}"
        return ErrorReply(error=ErrorDetail(message=message, type="unknown"))


def read_streamed_fault(data: str) -> TureenError | None:
    """The error that one event of a stream carries, if it does."""
    try:
        reply = ErrorReply.model_validate_json(data)
    except ValidationError:
        return None
    return make_fault(reply.error, reply.request_id)


def make_fault(error: ErrorDetail, request_id: str | None = None) -> TureenError:
    """The error that stands inside an answer, where no status tells its class: its code does, or its type."""
    kind = _BY_CODE.get(error.code or "") or _BY_TYPE.get(error.type, ServerFault)
    return kind(error.message, param=error.param, code=error.code, request_id=request_id)


def make_connection_error(error: httpx2.RequestError, url: str) -> ConnectionFailed:
    """The error for a request that no response came to."""
    if isinstance(error, httpx2.ConnectError):
        message = f"nothing answers at {url}: start a server with `tureen-serve --starter`, or set TUREEN_BASE_URL"
    elif isinstance(error, httpx2.TimeoutException):
        message = f"{url} did not answer in time ({type(error).__name__})"
    else:
        message = f"the connection to {url} broke off ({type(error).__name__}: {error})"
    failed = ConnectionFailed(message)
    failed.__cause__ = error
    return failed


def read_retry_after(response: httpx2.Response) -> float | None:
    """Seconds that the server asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
    told = response.headers
    milliseconds = _seconds(told.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    seconds = _seconds(told.get("retry-after"))
    return seconds if seconds is not None else _until(told.get("retry-after"), told.get("date"))


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _until(moment: str | None, now: str | None) -> float | None:
    """Measured from the response's own date, so that no clocks need to agree."""
    try:
        return max(0.0, (parsedate_to_datetime(moment or "") - parsedate_to_datetime(now or "")).total_seconds())
    except (TypeError, ValueError):
        return None
