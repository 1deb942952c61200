"""A request's body, read strictly: what a lenient JSON reader would let pass in silence is refused by name.

A route of :class:`StrictRoute` reads its body here and validates and documents it as FastAPI does.
"""

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from tureen.errors import InvalidRequest, UnsupportedMedia

DEEPEST = 32
LARGE = 2**16


class StrictRequest(Request):
    """A request whose JSON was parsed by :func:`parse`."""

    document: Any = None

    async def read(self) -> None:
        """Parse the body; a large one beside the event loop.

        Raises:
            UnsupportedMedia: it says that it is no JSON, or compressed.
            InvalidRequest: it is no JSON.
        """
        check_type(self.headers.get("content-type", ""), self.headers.get("content-encoding", "identity"))
        body = await self.body()
        self.document = await asyncio.to_thread(parse, body) if len(body) > LARGE else parse(body)

    async def json(self) -> Any:
        """What was parsed."""
        return self.document


class StrictRoute(APIRoute):
    """A route that reads its body with :class:`StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind the strict reader."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if self.body_field is None:
                return await handler(request)
            reading = StrictRequest(request.scope, request.receive)
            await reading.read()
            return await handler(reading)

        return strict


def check_type(content_type: str, encoding: str) -> None:
    """Refuse a body that does not declare itself as JSON in UTF-8, uncompressed."""
    media, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise UnsupportedMedia("send the body as JSON with the header Content-Type: application/json")
    charsets = [part.removeprefix("charset=").strip('"') for part in parameters if part.startswith("charset=")]
    if any(charset not in ("utf-8", "utf8") for charset in charsets):
        raise UnsupportedMedia(f"the charset {charsets[0]} is not read; send UTF-8")
    if encoding.lower() not in ("", "identity"):
        raise UnsupportedMedia(f"the content encoding {encoding} is not read; send the body uncompressed")


def parse(body: bytes) -> Any:
    """A JSON document.

    Raises:
        InvalidRequest: it is empty or no UTF-8, no JSON or more than one document; holds a number that is not
            finite, a field twice in one object, or levels beyond 32.
    """
    if not body:
        raise InvalidRequest("the body is empty; send a JSON object", code="invalid_json")
    try:
        document = json.loads(
            body.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
        )
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8: byte {error.start} cannot be read"
        raise InvalidRequest(message, code="invalid_json") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # json.JSONDecodeError, and int() of thousands of digits
        raise InvalidRequest(f"the body is not JSON: {error}", code="invalid_json") from None
    _check_depth(document)
    return document


def _refuse_constant(name: str) -> float:
    raise InvalidRequest(f"{name} is not JSON; every number must be finite", code="invalid_json")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidRequest(f"the number {text[:32]} is too large; every number must be finite", code="invalid_json")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"the field {twice!r} stands twice in one object", param=twice, code="invalid_json")
    return document


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body is nested deeper than {DEEPEST} levels", code="invalid_json")


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(DEEPEST):
        children = (
            node.values() if isinstance(node, dict) else node for node in level if isinstance(node, (dict, list))
        )
        level = [child for siblings in children for child in siblings]
        if not level:
            return
    if any(isinstance(node, (dict, list)) for node in level):
        raise _too_deep()
