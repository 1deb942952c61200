"""Responses as typed replies or errors. No network: a response is httpx2's, with its body already read."""

import math
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from tureen.errors import (
    BY_STATUS,
    ConnectionFailed,
    DeadlineExceeded,
    ServerFault,
    TureenError,
    find_error_class,
)
from tureen.validation import explain_errors
from tureen.wire import ErrorDetail, ErrorReply

B = TypeVar("B", bound=BaseModel)

EXCERPT = 200

_BY_CODE = {error.code: error for error in BY_STATUS.values()}
_BY_TYPE = {error.type: error for error in reversed(BY_STATUS.values())}


def require_success(told: httpx2.Response | ConnectionFailed) -> httpx2.Response:
    """Return the response if it is successful.

    Raises:
        TureenError: the server's error, or ``ConnectionFailed`` if there was no response.
    """
    if isinstance(told, ConnectionFailed):
        raise told
    if not told.is_success:
        raise read_fault(told)
    return told


def parse_response(kind: type[B], response: httpx2.Response) -> B:
    """Parse the body of a successful response as ``kind``.

    Raises:
        ServerFault: the body is not a ``kind``.
    """
    return parse_json(kind, response.content)


def parse_json(kind: type[B], body: bytes | str) -> B:
    """Parse the JSON of a reply, or of one event of a stream, as ``kind``.

    Raises:
        ServerFault: it is not a ``kind``.
    """
    try:
        document = from_json(body)
        return kind.model_validate(document)
    except ValidationError as error:
        problem = explain_errors(error.errors(), document).message
    except ValueError as error:
        problem = f"it is not JSON: {error}"
    raise ServerFault(f"the reply is not a valid {kind.__name__}: {problem}", code="unreadable_reply")


def read_fault(response: httpx2.Response) -> TureenError:
    """Return the server's error: the same class, with its message, field, code, Retry-After and request id.

    A proxy's 408 becomes ``DeadlineExceeded`` (504), which is retried. A 409 is retried only if it has a Retry-After:
    the same request is then in progress. Without one, another model is loaded.
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
        # The reply comes from a proxy or from another kind of server.
        said = " ".join(response.text.split())[:EXCERPT] or response.reason_phrase
        message = f"{response.request.url} answered {response.status_code}: {said}"
        return ErrorReply(error=ErrorDetail(message=message, type="unknown"))


def read_streamed_fault(data: str) -> TureenError | None:
    """Return the error in one event of a stream, or None."""
    try:
        reply = ErrorReply.model_validate_json(data)
    except ValidationError:
        return None
    return make_fault(reply.error, reply.request_id)


def make_fault(error: ErrorDetail, request_id: str | None = None) -> TureenError:
    """Return the error for an error object without an HTTP status. Its code gives the class, else its type."""
    kind = _BY_CODE.get(error.code or "") or _BY_TYPE.get(error.type, ServerFault)
    return kind(error.message, param=error.param, code=error.code, request_id=request_id)


def make_connection_error(error: httpx2.RequestError, url: str) -> ConnectionFailed:
    """Return the error for a request that got no response."""
    if isinstance(error, httpx2.ConnectError):
        message = f"no server answers at {url}: start one with `tureen-serve --starter`, or set TUREEN_BASE_URL"
    elif isinstance(error, httpx2.TimeoutException):
        message = f"{url} did not answer in time ({type(error).__name__})"
    else:
        message = f"the connection to {url} was lost ({type(error).__name__}: {error})"
    failed = ConnectionFailed(message)
    failed.__cause__ = error
    return failed


def read_retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds to wait, from ``retry-after-ms`` or from ``retry-after`` (seconds or a date), or None."""
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
    """Return the seconds from the response's date to ``moment``, so that the clocks of client and server may differ."""
    try:
        return max(0.0, (parsedate_to_datetime(moment or "") - parsedate_to_datetime(now or "")).total_seconds())
    except (TypeError, ValueError):
        return None
