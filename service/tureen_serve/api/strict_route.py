"""Read request bodies as strict JSON (:mod:`tureen_serve.strict_json`). FastAPI validates and documents them.

A body that takes long is parsed and validated in a thread, so that the event loop stays free. FastAPI then gets the
validated body and passes it on.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from tureen.errors import UnsupportedMedia
from tureen_serve.inference.pieces import GoOn, run_pieces
from tureen_serve.strict_json import JsonLimits, parse_json

LARGE = 2**16  # bytes of a body that is read in a thread
MANY = 256  # objects in such a body

Validate = Callable[..., tuple[Any, Any]]  # of FastAPI's field: the value, and pydantic's list of errors


class StrictRequest(Request):
    """A request whose body is parsed by :func:`parse_json`."""

    document: Any = None

    async def read(self, limits: JsonLimits, validate: Validate) -> None:
        """Parse the body, and validate it too if it is large.

        Raises:
            UnsupportedMedia: the headers declare another type, another charset than UTF-8, or compression.
            InvalidRequest: the body is not strict JSON.
            PayloadTooLarge: the body is larger than the limits.
            RequestValidationError: a large body is not what the route takes.
        """
        check_content_type(self.headers.get("content-type", ""), self.headers.get("content-encoding", "identity"))
        body = await self.body()
        if len(body) <= LARGE and body.count(b"{") <= MANY:
            self.document = parse_json(body, limits=limits)
        else:
            self.document = await run_pieces(lambda go_on: _read_large(body, limits, validate, go_on))

    async def json(self) -> Any:
        """Return the parsed body."""
        return self.document


class StrictRoute(APIRoute):
    """A route that reads its body with :class:`StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, with a strict reader before it."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if self.body_field is None:
                return await handler(request)
            reading, server = StrictRequest(request.scope, request.receive), request.app.state.server
            await server.turns.take()
            await reading.read(server.json_limits, self.body_field.validate)
            return await handler(reading)

        return strict


def _read_large(body: bytes, limits: JsonLimits, validate: Validate, go_on: GoOn) -> Any:
    document = parse_json(body, limits=limits)
    go_on()
    value, errors = validate(document, {}, loc=("body",))
    if errors:
        raise RequestValidationError(errors, body=document)
    return value


def check_content_type(content_type: str, encoding: str) -> None:
    """Check that the headers declare JSON in UTF-8 without compression.

    Raises:
        UnsupportedMedia: they declare something else.
    """
    media, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise UnsupportedMedia("send the body as JSON with the header Content-Type: application/json")
    charsets = [part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")]
    if any(charset not in ("utf-8", "utf8") for charset in charsets):
        raise UnsupportedMedia(f"the charset {charsets[0]} is not supported; send UTF-8")
    if encoding.lower() not in ("", "identity"):
        raise UnsupportedMedia(f"the content encoding {encoding} is not supported; send the body uncompressed")
