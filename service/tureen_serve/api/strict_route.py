"""Read request bodies as strict JSON (:mod:`tureen_serve.strict_json`). FastAPI validates and documents them.

A body that takes long is parsed and validated in a thread, so that the event loop stays free. The validated body is
then passed on.
"""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from tureen.errors import UnsupportedMedia
from tureen_serve.api.route_call import RouteCall, plan_call
from tureen_serve.inference.pieces import GoOn, run_pieces
from tureen_serve.strict_json import JsonLimits, parse_json
from tureen_serve.telemetry import App, Receive, Scope, Send

LARGE = 2**16  # bytes of a body that is read in a thread
MANY = 256  # objects in such a body
STACK = "fastapi_inner_astack"  # where FastAPI looks for the stack of a request, too

Validate = Callable[..., tuple[Any, Any]]  # of FastAPI's field: the value, and pydantic's list of errors


class StrictRequest(Request):
    """A request whose body is parsed by :func:`parse_json`."""

    document: Any = None

    async def read(self, limits: JsonLimits, validate: Validate) -> None:
        """Parse the body, and validate it too if it is large.

        Raises:
            UnsupportedMedia: the headers declare another type, or another charset than UTF-8.
            InvalidRequest: the body is not strict JSON.
            PayloadTooLarge: the body is larger than the limits.
            RequestValidationError: a large body is not what the route takes.
        """
        check_content_type(self.headers.get("content-type", ""))
        body = await self.body()
        if len(body) <= LARGE and body.count(b"{") <= MANY:
            self.document = parse_json(body, limits=limits)
        else:
            self.document = await run_pieces(lambda go_on: _read_large(body, limits, validate, go_on), large=True)

    async def json(self) -> Any:
        """Return the parsed body."""
        return self.document


class StrictRoute(APIRoute):
    """A route that reads its body with :class:`StrictRequest`."""

    _call: RouteCall | None = None

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        if self._call is not None:
            self.app = _keep_open(self.get_route_handler())

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler: a strict reader, and then the route's own call, or FastAPI's where it must be."""
        handler = super().get_route_handler()
        self._call = call = plan_call(self)

        async def strict(request: Request) -> Response:
            if self.body_field is None:
                return await handler(request)
            reading = request if isinstance(request, StrictRequest) else StrictRequest(request.scope, request.receive)
            server = request.app.state.server
            await server.turns.take()
            await reading.read(server.json_limits, self.body_field.validate)
            if call is None:
                return await handler(reading)
            return await call.answer(reading, reading.document, request.scope[STACK])

        return strict


def _keep_open(handler: Callable[[Request], Awaitable[Response]]) -> App:
    """Make the application of a route. What its dependencies open stays open until the reply is sent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as scope[STACK]:
            response = await handler(StrictRequest(scope, receive, send))
            await response(scope, receive, send)

    return app


def _read_large(body: bytes, limits: JsonLimits, validate: Validate, go_on: GoOn) -> Any:
    document = parse_json(body, limits=limits)
    go_on()
    value, errors = validate(document, {}, loc=("body",))
    if errors:
        raise RequestValidationError(errors, body=document)
    return value


def check_content_type(content_type: str) -> None:
    """Check that the header declares JSON in UTF-8.

    Raises:
        UnsupportedMedia: it declares something else.
    """
    media, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise UnsupportedMedia("send the body as JSON with the header Content-Type: application/json")
    charsets = [part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")]
    if any(charset not in ("utf-8", "utf8") for charset in charsets):
        raise UnsupportedMedia(f"the charset {charsets[0]} is not supported; send UTF-8")
