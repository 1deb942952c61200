"""Values of a record's fields, checked: each function names the field in its error."""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar, overload

from tureen.message_fields import BadMessage
from tureen.messages import read_message
from tureen.records.schema import UNLABELLED, BadRecord, Conversation, Message
from tureen.records.spelled_messages import parse_parts

Fields = Mapping[str, Any]
Wanted = TypeVar("Wanted")

KINDS: dict[type, str] = {
    str: "a string",
    list: "a list",
    dict: "an object",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
NO_SCORE = ("", "n/a", "na", "nan", "null", "none")
SPEAKERS = {
    **{"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant"},
    **{"system": "system", "observation": "tool", "tool": "tool", "function_call": "assistant", "model": "assistant"},
    **{"tool_call": "assistant", "tool_response": "tool", "function_response": "tool", "function": "tool"},
    **{"bot": "assistant", "chatbot": "assistant", "ai": "assistant", "bing": "assistant", "bard": "assistant"},
    "prompter": "user",
}
CALLS = ("function_call", "tool_call")


def describe_type(value: object) -> str:
    """Name the type of a value in JSON's words."""
    return "null" if value is None else KINDS.get(type(value), type(value).__name__)


@overload
def check_type(value: object, wanted: type[Wanted], field: str) -> Wanted: ...
@overload
def check_type(value: object, wanted: tuple[type, ...], field: str) -> Any: ...
def check_type(value: object, wanted: type | tuple[type, ...], field: str) -> Any:
    """Return the value if it has the type, or one of the types.

    Raises:
        BadRecord: it has another.
    """
    if not isinstance(value, wanted):
        raise BadRecord("wrong type", f"`{field}` must be {describe_types(wanted)}, is {describe_type(value)}")
    return value


def describe_types(wanted: type | tuple[type, ...]) -> str:
    """Name types in JSON's words, as ``a string or a list``."""
    return " or ".join(dict.fromkeys(KINDS[each] for each in (wanted if isinstance(wanted, tuple) else (wanted,))))


def read_spelled_score(value: object, field: str) -> float:
    """Read a score as :func:`read_score` does, or from text: a number, or a word such as ``N/A`` for none.

    Raises:
        BadRecord: it is neither, or too large.
    """
    if isinstance(value, str):
        if value.strip().lower() in NO_SCORE:
            return UNLABELLED
        if not NUMBER.fullmatch(value):
            raise BadRecord("bad score", f"`{field}` must be a number or null, is {value[:20]!r}")
        return read_score(float(value), field)
    return read_score(value, field)


def read_score(value: object, field: str) -> float:
    """Read a number as a float. Null is NaN.

    Raises:
        BadRecord: it is neither, or too large.
    """
    if value is None:
        return UNLABELLED
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecord("bad score", f"`{field}` must be a number or null, is {describe_type(value)}")
    try:
        return float(value)
    except OverflowError:
        raise BadRecord("bad score", f"`{field}` is larger than a float holds") from None


def read_rank(value: object, field: str) -> float:
    """Read a rank as a score. 1 is the best rank, so the score is the negative rank. Null is NaN.

    Raises:
        BadRecord: it is no number, or negative.
    """
    rank = read_spelled_score(value, field)
    if rank < 0:
        raise BadRecord("bad score", f"`{field}` must be a rank, where 1 is the best, is {rank:g}")
    return 0.0 - rank


def read_messages(value: object, field: str) -> Conversation:
    """Read a list of messages, also in ShareGPT's form, into the canonical form of :mod:`tureen.messages`.

    Raises:
        BadRecord: it is no list, or one is no message.
    """
    return tuple(_message(each, f"{field}[{index}]") for index, each in enumerate(check_type(value, list, field)))


def _message(value: object, where: str) -> Message:
    present = {name: part for name, part in check_type(value, dict, where).items() if part is not None}
    present = _sharegpt(present, where) if "from" in present else {**present, **_read_role(present)}
    if isinstance(present.get("content"), str):
        present["content"] = parse_parts(present["content"])
    try:
        return read_message(present)
    except BadMessage as error:
        place = f"{where}.{error.field}".removesuffix(".")
        raise BadRecord("bad message", f"`{place}`: {error.problem}") from None


def _read_role(present: Mapping[str, Any]) -> dict[str, str]:
    """Read a role in another case, or a speaker's name as the role."""
    role = present.get("role")
    folded = role.strip().lower() if isinstance(role, str) else ""
    if role == "developer" or folded not in SPEAKERS or folded in CALLS:
        return {"role": folded} if folded == "developer" else {}
    return {"role": SPEAKERS[folded]}


def _sharegpt(value: dict[str, Any], where: str) -> dict[str, Any]:
    """Read ShareGPT's ``from`` and ``value`` as ``role`` and ``content``. The assistant calls functions."""
    speaker, text = value["from"], check_type(value.get("value"), str, f"{where}.value")
    others = {name: part for name, part in value.items() if name not in ("from", "value", "weight")}
    speaker = speaker.strip().lower() if isinstance(speaker, str) else speaker
    if speaker not in SPEAKERS:
        raise BadRecord("bad message", f"`{where}.from` is {speaker!r}; use {', '.join(SPEAKERS)}")
    if speaker not in CALLS:
        return {"role": SPEAKERS[speaker], "content": text, **others}
    try:
        found = json.loads(text)
        calls = [
            {"type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for call in (found if isinstance(found, list) else [found])
        ]
    except (ValueError, KeyError, TypeError):
        detail = f"`{where}.value` of a function_call must be JSON with `name` and `arguments`, is {text[:40]!r}"
        raise BadRecord("bad message", detail) from None
    return {"role": "assistant", "content": "", "tool_calls": calls, **others}
