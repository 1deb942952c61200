"""Write replies as JSON. A number that is not finite is an error, never ``NaN`` or null.

Replies of our own routes are models of :mod:`tureen.wire`, which refuse such numbers. All others are written here.
"""

import json
from typing import Any

from fastapi.responses import JSONResponse

from tureen.errors import ServerFault


class JsonReply(JSONResponse):
    """A reply in JSON, in UTF-8."""

    def render(self, content: Any) -> bytes:
        """Write the body."""
        return write_json(content)


class EchoReply(JsonReply):
    """A reply in JSON, in ASCII. What goes back as it came may hold lone surrogates, which only an escape can write."""

    def render(self, content: Any) -> bytes:
        """Write the body."""
        return write_json(content, ascii_only=True)


def write_json(value: Any, *, ascii_only: bool = False) -> bytes:
    """Write a document.

    Args:
        ascii_only: write all other characters as escapes.

    Raises:
        ServerFault: a number is not finite.
        UnicodeEncodeError: a text holds a lone surrogate, which UTF-8 cannot express.
    """
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise ServerFault("the answer holds a number that is not finite", code="non_finite_number") from None
    return text.encode()
