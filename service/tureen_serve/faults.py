"""Turn every error into a reply: its status, OpenAI's error object, and the request's id.

All code below raises. :class:`Faults` stands around the application and translates what it raised, errors of the
framework included. Of an unexpected error the caller only gets the request's id, under which the log has the details.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tureen.errors import (
    BY_STATUS,
    DeadlineExceeded,
    Forbidden,
    HeadersTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    ServerFault,
    TureenError,
    Unauthorized,
    Unavailable,
    Unprocessable,
    find_error_class,
)
from tureen.validation import explain_errors
from tureen.wire import ErrorDetail, ErrorReply
from tureen_serve.log_lines import REQUEST_ID
from tureen_serve.path_forms import list_methods
from tureen_serve.telemetry import App, Message, Receive, Scope, Send

LOG = logging.getLogger(__name__)
LONGEST_WAIT = 60
LONGEST_UPSTREAM_WAIT = 86400  # what another server asks for is passed on
MERGED: Mapping[int, int] = {415: 400, 422: 400}

ErrorReplyBuilder = Callable[[TureenError], Response]


class Faults:
    """ASGI middleware: answers every error that the layers below raised.

    Args:
        builders: template of a route → function that builds its error reply. Other routes use
            :func:`build_error_reply`.
        find: finds the template of a path; by default a path is one.
    """

    def __init__(
        self,
        app: App,
        builders: Mapping[str, ErrorReplyBuilder] | None = None,
        find: Callable[[str], str] = str,
    ) -> None:
        self._app = app
        self._builders = builders or {}
        self._find = find

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
            fault = translate_error(error)
            scope["tureen.fault"] = fault.code
            route = scope.get("route")  # None where a layer above the routes refused
            path = self._find(scope["path"]) if route is None else route.path
            build = self._builders.get(path, build_error_reply)
            if isinstance(fault, MethodNotAllowed):
                methods = ", ".join(list_methods(scope["app"].routes, scope["path"]))
                reply = build(MethodNotAllowed(f"this route takes {methods}"))
                reply.headers["allow"] = methods
            else:
                reply = build(fault)
            await reply(scope, receive, send)


async def pass_on(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    """Raise the error again. It replaces the framework's own error handlers."""
    raise error


HANDLERS: dict[int | type[Exception], Any] = {HTTPException: pass_on, RequestValidationError: pass_on}


def build_error_reply(error: TureenError) -> JSONResponse:
    """Build the reply for an error: its status, OpenAI's error object and the headers."""
    return JSONResponse(build_error_body(error), status_code=error.status, headers=build_error_headers(error))


def build_openai_error(error: TureenError) -> JSONResponse:
    """Build the reply for an error on a route of OpenAI: as :func:`build_error_reply`, with the merged status."""
    return JSONResponse(
        build_error_body(error), status_code=find_merged_status(error), headers=build_error_headers(error)
    )


def find_merged_status(error: TureenError) -> int:
    """Find an error's status in APIs that answer 400 for every bad body, as OpenAI, vLLM and SGLang do."""
    return MERGED.get(error.status, error.status)


def build_error_headers(error: TureenError) -> dict[str, str]:
    """Build the headers of an error: Retry-After in seconds, and WWW-Authenticate for a bad key."""
    found = {}
    if error.retry_after is not None or error.status in (429, 503):
        longest = LONGEST_UPSTREAM_WAIT if error.code.startswith("upstream_") else LONGEST_WAIT
        found["retry-after"] = str(min(max(math.ceil(error.retry_after or 1), 1), longest))
    if isinstance(error, Unauthorized):
        found["www-authenticate"] = "Bearer"
    if error.code == "slow_body":
        found["connection"] = "close"  # else the rest of the body is read for as long as it comes
    return found


def build_error_body(error: TureenError) -> dict[str, Any]:
    """Build OpenAI's error object with the request's id. A stream that fails sends it as its last event."""
    return ErrorReply(error=describe_error(error), request_id=REQUEST_ID.get()).model_dump()


def describe_error(error: TureenError) -> ErrorDetail:
    """Build OpenAI's error object. Names of fields come from the caller, so bytes that are not Unicode are escaped."""
    message, param = (text and text.encode(errors="backslashreplace").decode() for text in (error.message, error.param))
    return ErrorDetail(message=message or "", type=error.type, param=param, code=error.code)


def translate_error(error: BaseException) -> TureenError:
    """Return the :class:`TureenError` for any error. An unexpected one is logged and becomes a 500 without details."""
    if isinstance(error, TureenError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _http(error)
    if isinstance(error, ValidationError) and all(each["type"] == "finite_number" for each in error.errors()):
        return ServerFault("the answer holds a number that is not finite", code="non_finite_number")
    if isinstance(error, UnicodeEncodeError):
        return Unprocessable("the request holds a lone surrogate, which is not Unicode; send text")
    LOG.error("unexpected %s", type(error).__name__, exc_info=error)
    return ServerFault("the server failed on this request; its log has the details under the request's id")


def _invalid(error: RequestValidationError) -> TureenError:
    """Translate FastAPI's errors. Errors of the query and the headers come before errors of the body."""
    found = [{**each, "loc": each["loc"][1:], "part": each["loc"][0]} for each in error.errors()]
    if not found[0]["loc"] and found[0]["type"] == "missing":
        return Unprocessable("the body is null; send an object")
    outside = [each for each in found if each["part"] != "body"]
    given = {each["loc"][0]: each["input"] for each in outside}
    return explain_errors(outside or found, given if outside else error.body)


def _http(error: HTTPException) -> TureenError:
    if error.status_code == 404:
        return NotFound("there is no such route; GET /openapi.json lists all routes", code="unknown_route")
    if error.status_code == 405:
        return MethodNotAllowed("this route takes another method")
    return find_error_class(error.status_code)(str(error.detail))


EVERYWHERE = [
    each.status
    for each in (
        InvalidRequest,
        Unauthorized,
        Forbidden,
        PayloadTooLarge,
        RateLimited,
        HeadersTooLarge,
        ServerFault,
        Unavailable,
        DeadlineExceeded,
    )
]  # what the layers before the routes answer


def document_errors(
    *statuses: int, model: type[BaseModel] = ErrorReply, moved: Mapping[int, int] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Describe a route's errors for OpenAPI: its own, and those that every route may have.

    Too many headers are refused before the route is known, so that error has our own body everywhere.

    Args:
        model: the body of each error.
        moved: our status → the dialect's status for the same error.
    """
    known = {status: BY_STATUS[status].__doc__ or "" for status in sorted({*statuses, *EVERYWHERE})}
    documented: dict[int | str, dict[str, Any]] = {}
    for status, text in known.items():
        own = ErrorReply if status == HeadersTooLarge.status else model
        described = {"model": own, "description": text.split(": ", 1)[1]}
        documented.setdefault((moved or {}).get(status, status), described)
    if 422 in known and 422 not in documented:
        documented["4XX"] = {"model": model, "description": "nothing else."}  # else FastAPI adds a 422 of its own
    return documented


def document_openai_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route of OpenAI for OpenAPI, with the statuses of :func:`find_merged_status`."""
    return document_errors(*statuses, moved=MERGED)
