"""JSON Lines, read and written by one rule in every command, file and batch.

A line ends with a line feed, and with nothing else: U+2028 and its like stand inside texts. A byte order mark
before a line, as joined files have it, carriage returns at the ends and blank lines are nothing. Lines that are written
hold no other character at which a reader splits.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

SEPARATORS = {0x0B: "\\u000b", 0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
BLANK = b" \t\r\n"
NEGATIVE_ZERO = re.compile(r"-0\.0(?![0-9])")


class RepeatedKey(ValueError):
    """An object names one key twice, of which a reader would silently lose one."""


def iterate_lines(stream: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not blank, without its end, as (number from 1, bytes).

    Args:
        stream: a binary file, or its lines.
    """
    for number, line in enumerate(stream, 1):
        if content := line.removeprefix(codecs.BOM_UTF8).strip(BLANK):
            yield number, content


def encode_line(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """A value as one line of JSON, with its line feed.

    Raises:
        ValueError: a number in it is not finite.
    """
    return encode_json_text(value, default).encode() + b"\n"


def encode_json_text(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """A value as JSON on one line, which every reader takes for one line. A zero is never negative.

    Raises:
        ValueError: a number in it is not finite.
    """
    text = _encode(value, default)
    if NEGATIVE_ZERO.search(text):
        text = _encode(_clear_zeros(json.loads(text)), None)
    return text.translate(SEPARATORS)


def _encode(value: Any, default: Callable[[Any], Any] | None) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default)


def _clear_zeros(value: Any) -> Any:
    """A decoded value with 0.0 in the place of each -0.0."""
    if isinstance(value, dict):
        return {name: _clear_zeros(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_clear_zeros(each) for each in value]
    return value + 0.0 if isinstance(value, float) else value


def decode_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        RepeatedKey: an object names a key twice.
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    return STRICT.decode(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise RepeatedKey(find_repeated_name(name for name, _ in pairs))
    return made


def find_repeated_name(names: Iterable[str]) -> str:
    """Find the first name that is the same as an earlier one. Each name is looked at once.

    Raises:
        ValueError: no name is repeated.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    raise ValueError("no name is repeated")


STRICT = json.JSONDecoder(object_pairs_hook=_unique)
LENIENT = json.JSONDecoder()
