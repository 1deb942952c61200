"""Read request bodies as strict JSON (:mod:`tureen_serve.strict_json`). FastAPI still validates and documents them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from tureen.errors import UnsupportedMedia
from tureen_serve.strict_json import parse_json

LARGE = 2**16  # bytes; larger bodies are parsed in a thread


class StrictRequest(Request):
    """A request whose body is parsed by :func:`parse_json`."""

    document: Any = None

    async def read(self) -> None:
        """Parse the body.

        Raises:
            UnsupportedMedia: the headers declare another type, another charset than UTF-8, or compression.
            InvalidRequest: the body is not strict JSON.
        """
        check_content_type(self.headers.get("content-type", ""), self.headers.get("content-encoding", "identity"))
        body = await self.body()
        self.document = await asyncio.to_thread(parse_json, body) if len(body) > LARGE else parse_json(body)

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
            reading = StrictRequest(request.scope, request.receive)
            await reading.read()
            return await handler(reading)

        return strict


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
