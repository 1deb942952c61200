"""Parse JSON strictly. Python's own reader would accept NaN, infinities and repeated fields. Pure."""

import json
import math
from typing import Any

from tureen.errors import InvalidRequest

DEEPEST = 32


def parse_json(body: bytes, what: str = "the body") -> Any:
    """Parse a JSON document.

    Args:
        what: the name of the document in error messages.

    Raises:
        InvalidRequest: the document is empty, is not UTF-8, is not exactly one JSON document, or is nested deeper than
            32 levels; or it holds a number that is not finite, or a field twice in one object.
    """
    if not body:
        raise InvalidRequest(f"{what} is empty; send a JSON object", code="invalid_json")
    try:
        document = json.loads(
            body.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
        )
    except UnicodeDecodeError as error:
        message = f"{what} is not UTF-8: byte {error.start} cannot be read"
        raise InvalidRequest(message, code="invalid_json") from None
    except RecursionError:
        raise _too_deep(what) from None
    except ValueError as error:  # json.JSONDecodeError, and int() of thousands of digits
        raise InvalidRequest(f"{what} is not JSON: {error}", code="invalid_json") from None
    _check_depth(document, what)
    return document


def _refuse_constant(name: str) -> float:
    raise InvalidRequest(f"{name} is not JSON; send finite numbers only", code="invalid_json")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidRequest(f"the number {text[:32]} is too large; send finite numbers only", code="invalid_json")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(
            f"the field {twice!r} is twice in one object; send it once", param=twice, code="invalid_json"
        )
    return document


def _too_deep(what: str) -> InvalidRequest:
    return InvalidRequest(f"{what} is nested too deeply; the limit is {DEEPEST} levels", code="invalid_json")


def _check_depth(document: Any, what: str) -> None:
    level = [document]
    for _ in range(DEEPEST):
        children = (
            node.values() if isinstance(node, dict) else node for node in level if isinstance(node, (dict, list))
        )
        level = [child for siblings in children for child in siblings]
        if not level:
            return
    if any(isinstance(node, (dict, list)) for node in level):
        raise _too_deep(what)
