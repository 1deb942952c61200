"""The one place where an error becomes an answer: a status, OpenAI's error object, and the request's id.

Everything below raises; :class:`Faults` stands around the application and translates what comes up, the framework's
own errors too. Nothing of an unexpected error reaches the caller but the id under which the log tells of it.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from tureen.errors import (
    BY_STATUS,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    ServerFault,
    TureenError,
    Unauthorized,
    Unprocessable,
    from_status,
)
from tureen.wire import ErrorDetail, ErrorReply
from tureen_serve.telemetry import REQUEST_ID, App, Message, Receive, Scope, Send

LOG = logging.getLogger(__name__)
LONGEST_WAIT = 60
TYPE_ERRORS = {"missing": "is required", "extra_forbidden": "is not a field of this request"}
Location = tuple[int | str, ...]


class Faults:
    """ASGI: answers for every error that was not answered below."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            fault = translate(error)
            scope["tureen.fault"] = fault.code
            await answer(fault)(scope, receive, send)


async def pass_on(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    """Stands in the framework's table of handlers, so that its own answers never appear."""
    raise error


HANDLERS: dict[int | type[Exception], Any] = {HTTPException: pass_on, RequestValidationError: pass_on}


def answer(error: TureenError) -> JSONResponse:
    """The reply that tells of an error."""
    headers = {}
    if error.retry_after is not None or error.status == 503:
        headers["retry-after"] = str(min(max(math.ceil(error.retry_after or 1), 1), LONGEST_WAIT))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body(error), status_code=error.status, headers=headers)


def body(error: TureenError) -> dict[str, Any]:
    """OpenAI's error object with the request's id; also what a stream sends when it fails midway."""
    return ErrorReply(error=detail(error), request_id=REQUEST_ID.get()).model_dump()


def detail(error: TureenError) -> ErrorDetail:
    """OpenAI's error object. A field's name may come from the caller and hold what is not Unicode."""
    message, param = (text and text.encode(errors="backslashreplace").decode() for text in (error.message, error.param))
    return ErrorDetail(message=message or "", type=error.type, param=param, code=error.code)


def translate(error: BaseException) -> TureenError:
    """The error of ours that says the same; an unexpected one is logged and becomes a plain 500."""
    if isinstance(error, TureenError):
        return error
    if isinstance(error, RequestValidationError):
        return unprocessable(error.errors(), error.body)
    if isinstance(error, HTTPException):
        return _http(error)
    LOG.error("unexpected %s", type(error).__name__, exc_info=error)
    return ServerFault("the server failed at this request; its log tells more under the request's id")


def _http(error: HTTPException) -> TureenError:
    if error.status_code == 404:
        return NotFound("there is no such route; GET /openapi.json lists them", code="unknown_route")
    if error.status_code == 405:
        return MethodNotAllowed(f"this route takes {(error.headers or {}).get('Allow', 'another method')}")
    return from_status(error.status_code)(str(error.detail))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's account of a route's errors."""
    everywhere = (Unauthorized.status, Forbidden.status, ServerFault.status)
    known = {status: BY_STATUS[status].__doc__ or "" for status in sorted({*statuses, *everywhere})}
    return {status: {"model": ErrorReply, "description": text.split(": ", 1)[1]} for status, text in known.items()}


def unprocessable(errors: Sequence[ErrorDetails | Mapping[str, Any]], document: Any) -> InvalidRequest:
    """One sentence of pydantic's list: which field, and what is wrong with it.

    Args:
        errors: as pydantic lists them; a union gives several for one mistake.
        document: what was validated. Parts of a location that it does not hold are names of union branches.
    """
    found = [_locate(error, document) for error in errors]
    first_path, first_root, _ = found[0]
    rivals = [each for each in found if first_root is not None and each[1] == first_root] or found[:1]
    path = max((each[0] for each in rivals), key=len)
    says = dict.fromkeys(_sentence(error) for where, _, error in rivals if where == path)
    param = dotted(path)
    sentence = ", or ".join(says)
    return Unprocessable(f"{param}: {sentence}" if param else sentence, param=param)


def _locate(
    error: ErrorDetails | Mapping[str, Any], document: Any
) -> tuple[Location, Location | None, ErrorDetails | Mapping[str, Any]]:
    """The error's path in the document, and the path of the outermost union it passed through, if any."""
    steps = [step for step in error["loc"] if step != "body"] if error["loc"][:1] == ("body",) else list(error["loc"])
    path: list[int | str] = []
    root: Location | None = None
    for number, step in enumerate(steps):
        absent = error["type"] == "missing" and number == len(steps) - 1
        if absent or _holds(document, step):
            path.append(step)
            document = None if absent else document[step]
        elif root is None:
            root = tuple(path)
    return tuple(path), root, error


def _holds(document: Any, step: int | str) -> bool:
    if isinstance(document, dict):
        return step in document
    return isinstance(document, list) and isinstance(step, int) and step < len(document)


def _sentence(error: ErrorDetails | Mapping[str, Any]) -> str:
    if error["type"] in TYPE_ERRORS:
        return TYPE_ERRORS[error["type"]]
    message: str = error["msg"].removeprefix("Value error, ").replace(" after validation", "")
    message = message.removeprefix("Input ") if message.startswith("Input should") else message
    return message[:1].lower() + message[1:]


def dotted(path: Iterable[int | str]) -> str | None:
    """``items[3].candidates[1]``; None for the body itself."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or None
