"""Parse JSON strictly, in time that is linear in its bytes. Pure.

Python's own reader would accept NaN, infinities and repeated fields. It would also build millions of values out of a
few megabytes: so values are counted in the bytes before any is built.
"""

import json
import math
import re
import sys
from dataclasses import dataclass
from typing import Any

from tureen.errors import InvalidRequest, PayloadTooLarge
from tureen.json_lines import find_repeated_name
from tureen.validation import join_path

DEEPEST = 32
SURE_DIGITS = sys.float_info.max_10_exp  # a whole number of so many digits is a finite float too
UNCOUNTED = 2**15  # bytes that hold too few values to count them
SHOWN = 64  # characters of a name in a message
# a text, closed or not; or one mark that begins a value
MARKS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[{,]', re.DOTALL)


@dataclass(frozen=True)
class JsonLimits:
    """The size of a document.

    Attributes:
        text_bytes: the longest text, in bytes of UTF-8.
        values: the largest number of values: numbers, texts, lists, objects, null, true and false.
        objects: the largest number of lists and objects among them.
        fields: the largest number of fields of one object.
    """

    text_bytes: int = 2**20
    values: int = 2**19
    objects: int = 2**16
    fields: int = 4096


LIMITS = JsonLimits()


def parse_json(body: bytes, what: str = "the body", limits: JsonLimits = LIMITS) -> Any:
    """Parse a JSON document.

    Args:
        what: the name of the document in error messages.

    Raises:
        InvalidRequest: the document is empty, is not UTF-8, is not exactly one JSON document, or is nested deeper than
            32 levels; or it holds a number that is not finite, or a field twice in one object.
        PayloadTooLarge: it is larger than the limits.
    """
    if not body:
        raise InvalidRequest(f"{what} is empty; send a JSON object", code="invalid_json")
    _count_values(body, what, limits)
    try:
        document = json.loads(
            body.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_unique,
        )
    except UnicodeDecodeError as error:
        message = f"{what} is not UTF-8: byte {error.start} cannot be read"
        raise InvalidRequest(message, code="invalid_json") from None
    except RecursionError:
        raise _too_deep(what) from None
    except ValueError as error:
        raise InvalidRequest(f"{what} is not JSON: {error}", code="invalid_json") from None
    _check_values(document, what, limits)
    return document


def _count_values(body: bytes, what: str, limits: JsonLimits) -> None:
    """Refuse a document with too many values, before they are built.

    Each value but the first follows one of three marks, so there are as many marks, or more if lists are empty. Texts
    hold marks too, so they are skipped if all marks are too many.
    """
    if len(body) <= UNCOUNTED:
        return
    objects = body.count(b"[") + body.count(b"{")
    if objects <= limits.objects and objects + body.count(b",") <= limits.values:
        return
    objects = commas = 0
    for found in MARKS.finditer(body):
        mark = body[found.start()]
        objects += mark in b"[{"
        commas += mark == ord(",")
        if objects > limits.objects:
            message = f"{what} has more than {limits.objects} lists and objects (`limits.body_objects`)"
            raise PayloadTooLarge(f"{message}; split it into several requests", code="too_many_values")
        if objects + commas > limits.values:
            message = f"{what} has more than {limits.values} values (`limits.body_values`)"
            raise PayloadTooLarge(f"{message}; split it into several requests", code="too_many_values")


def _refuse_constant(name: str) -> float:
    raise InvalidRequest(f"{name} is not JSON; send finite numbers only", code="invalid_json")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidRequest(f"the number {text[:32]} is too large; send finite numbers only", code="invalid_json")
    return number


def _whole(text: str) -> int:
    if len(text) > SURE_DIGITS:
        _finite(text)
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        twice = find_repeated_name(name for name, _ in pairs)[:SHOWN]
        raise InvalidRequest(
            f"the field {twice!r} is twice in one object; send it once", param=twice, code="invalid_json"
        )
    return document


def _too_deep(what: str) -> InvalidRequest:
    return InvalidRequest(f"{what} is nested too deeply; the limit is {DEEPEST} levels", code="invalid_json")


def _check_values(document: Any, what: str, limits: JsonLimits) -> None:
    """Check depth, texts, numbers and numbers of fields, level by level."""
    level = [document]
    for depth in range(DEEPEST + 1):
        below: list[Any] = []
        for node in level:
            kind = type(node)
            if kind is str:
                if len(node) * 4 > limits.text_bytes:
                    _check_text(node, document, limits)
            elif kind is dict:
                if len(node) > limits.fields:
                    message = f"an object has {len(node)} fields and the limit is {limits.fields}"
                    raise PayloadTooLarge(f"{message} (`limits.body_fields`); send fewer", code="too_many_values")
                below.extend(node.values())
            elif kind is list:
                below.extend(node)
            if depth == DEEPEST and kind in (dict, list):
                raise _too_deep(what)
        if not below:
            return
        level = below


def _check_text(text: str, document: Any, limits: JsonLimits) -> None:
    size = measure_text(text)
    if size > limits.text_bytes:
        path = _find_path(document, text)
        if not (path[0] == "items" and document.get("on_error") == "item"):  # there each item has its own error
            raise make_long_text_error(size, limits.text_bytes, join_path(path))


def _find_path(document: Any, text: str) -> tuple[int | str, ...]:
    """Find the path of one text object in a document."""
    waiting: list[tuple[tuple[int | str, ...], Any]] = [((), document)]
    while waiting:
        path, node = waiting.pop()
        if node is text:
            return path or ("",)
        if isinstance(node, (dict, list)):
            steps = node.items() if isinstance(node, dict) else enumerate(node)
            waiting += [((*path, step), each) for step, each in steps]
    return ("",)


def measure_text(text: str) -> int:
    """Return the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def make_long_text_error(size: int, most: int, param: str | None) -> PayloadTooLarge:
    """Make the error of a text that is too long to be read at all."""
    message = f"the text has {size} bytes and the limit is {most} (`limits.text_bytes`); shorten it"
    return PayloadTooLarge(message, param=param, code="text_too_large")
