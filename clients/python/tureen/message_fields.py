"""What the readers of messages and of tools share: the error, and checks of one field. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any


class BadMessage(ValueError):
    """A message that has no canonical form.

    Args:
        problem: what is wrong, and what to do.
        field: the field in the message, as ``tool_calls[0].function.name``; empty for the message itself.
    """

    def __init__(self, problem: str, field: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}" if self.field else self.problem


def list_values(value: object) -> list[Any] | None:
    """The values of a list, a tuple or an array; None where it is none of them."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return list(value)
    return None


def is_empty(value: object) -> bool:
    """Whether a value says nothing: null, false, an empty text, or a container of such values."""
    if isinstance(value, Mapping):
        return all(is_empty(each) for each in value.values())
    if value is None or value is False or isinstance(value, str):
        return not value
    values = list_values(value)
    return values is not None and all(is_empty(each) for each in values)


def check_text(value: object, field: str) -> str:
    """The value, if it is a text of Unicode.

    Raises:
        BadMessage: it is not.
    """
    if not isinstance(value, str):
        raise BadMessage(f"must be a text, is {describe_kind(value)}", field)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        problem = f"holds a lone surrogate at character {error.start}, which is not Unicode"
        raise BadMessage(problem, field) from None
    return value


def describe_kind(value: object) -> str:
    """What a value is, in JSON's words."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)
