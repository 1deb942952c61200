"""Values of a record's fields, checked: each function names the field in its error."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from tureen.records.schema import UNLABELLED, BadRecord, Conversation, Message
from tureen.wire import Message as WireMessage

Fields = Mapping[str, Any]
Wanted = TypeVar("Wanted")

KINDS = {str: "a string", list: "a list", dict: "an object", bool: "a boolean", int: "a number", float: "a number"}


def describe_type(value: object) -> str:
    """What a value is, in JSON's words."""
    return "null" if value is None else KINDS.get(type(value), type(value).__name__)


def check_type(value: object, wanted: type[Wanted], field: str) -> Wanted:
    """The value, if it has the type.

    Raises:
        BadRecord: it has another.
    """
    if not isinstance(value, wanted):
        raise BadRecord("wrong type", f"`{field}` must be {KINDS[wanted]}, is {describe_type(value)}")
    return value


def read_score(value: object, field: str) -> float:
    """A number as a float, NaN for null.

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


def read_messages(value: object, field: str) -> Conversation:
    """A list of ``{role, content}`` objects, checked as the wire checks them; keys that are null are left out.

    Raises:
        BadRecord: it is no list, or a message is not as :class:`tureen.wire.Message`.
    """
    return tuple(_message(each, f"{field}[{index}]") for index, each in enumerate(check_type(value, list, field)))


def _message(value: object, where: str) -> Message:
    present = {name: part for name, part in check_type(value, dict, where).items() if part is not None}
    try:
        return WireMessage.model_validate(present).plain()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in (where, *first["loc"]))
        raise BadRecord("bad message", f"`{place}`: {first['msg']}") from None
