"""Messages that a column holds as text: JSON, JSON encoded twice, a Python list, or what NumPy prints of one."""

import ast
import json
import re
from typing import Any

from tureen.records.schema import BadRecord

MESSAGES_AS_TEXT = re.compile(r"""\s*(?:array\()?\s*\[?\s*\{\s*['"](role|from|content|value)['"]\s*:""", re.IGNORECASE)
NUMPY = re.compile(r"\s*array\((?P<list>\[.*\])\s*(?:,\s*dtype=object)?\s*\)\s*", re.DOTALL)
NUMPY_JOINT = re.compile(r"\}\s*\n\s*\{")  # NumPy prints no commas between the objects of an array
PARTS_AS_TEXT = re.compile(r"""\s*\[\s*\{\s*['"](type|text)['"]\s*:\s*['"]""")
BOM = "\ufeff"
SPEAKERS = re.compile(r"""["'](role|from)["']\s*:""")
FIELDS: tuple[set[str], ...] = ({"role", "content"}, {"from", "value"}, {"role", "tool_calls"})


def parse_messages(text: str, name: str) -> Any:
    """Parse messages in a text: JSON, JSON encoded twice, a Python list or NumPy's. Another text stays as it is.

    Raises:
        BadRecord: it begins as messages do, and cannot be parsed.
    """
    text = text.removeprefix(BOM) if MESSAGES_AS_TEXT.match(text.removeprefix(BOM)) else text
    if text[:1] == '"' and MESSAGES_AS_TEXT.match(text[1:].replace('\\"', '"')):
        found = decode_text(text)
        return parse_messages(found, name) if isinstance(found, str) else text
    if not MESSAGES_AS_TEXT.match(text):
        return _parse_late_messages(text)
    found = decode_text(text)
    if found is None:
        found = _decode_array(text)
    if found is None:
        detail = f"`{name}` looks like messages written as text, and is neither JSON nor a Python list"
        raise BadRecord("messages as text", f"{detail}: {text[:60]!r}", column=name)
    return found


def parse_parts(text: str) -> Any:
    """Parse the text parts of a message in a text. Another text stays as it is."""
    found = decode_text(text) if PARTS_AS_TEXT.match(text) else None
    typed = isinstance(found, list) and all(isinstance(each, dict) and "type" in each for each in found)
    return found if typed else text


def _decode_array(text: str) -> Any:
    """Decode what NumPy prints of an array of objects, as pandas writes it into a table. None for another text."""
    inner = NUMPY.fullmatch(text)
    return decode_text(NUMPY_JOINT.sub("}, {", inner["list"] if inner else text))


def _parse_late_messages(text: str) -> Any:
    """Parse messages that begin with another field, as ``[{"name": ..., "role": ...``. Another text stays."""
    if text.lstrip()[:1] not in ("[", "{") or not SPEAKERS.search(text):
        return text
    found = decode_text(text)
    given = found["messages"] if isinstance(found, dict) and isinstance(found.get("messages"), list) else found
    turns = given if isinstance(given, list) else [given]
    spoken = [isinstance(each, dict) and any(fields <= each.keys() for fields in FIELDS) for each in turns]
    return given if turns and all(spoken) else text


def decode_text(text: str) -> Any:
    """Decode a text that is JSON or a Python literal. Returns None for another text."""
    for decode in (json.loads, ast.literal_eval):
        try:
            return decode(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None
