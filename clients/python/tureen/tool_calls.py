"""Calls of tools and descriptions of tools, in one canonical form. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from tureen.message_fields import BadMessage, check_text, describe_kind, is_empty, list_values

ARGUMENTS = ("arguments", "parameters", "args", "input")


def read_tools(value: object) -> list[dict[str, Any]]:
    """Bring descriptions of tools into OpenAI's form: ``{"type": "function", "function": {"name": ...}}``.

    Null fields, which columns of a table leave behind, are left out at every depth.

    Args:
        value: a list of objects, or such a list as JSON text; null is an empty list.

    Raises:
        BadMessage: it is no list of functions; ``field`` begins with the tool's index, as ``[1].function.name``.
    """
    given = _parse_json(value, "must be a list of functions, or such a list as JSON text")
    values = [] if given is None else list_values(given)
    if values is None:
        raise BadMessage(f"must be a list of functions, is {describe_kind(given)}")
    return [_read_tool(each, f"[{index}]") for index, each in enumerate(values)]


def read_calls(value: object, role: str) -> list[dict[str, Any]]:
    """Bring the tool calls of a message into OpenAI's form; arguments are JSON text.

    Args:
        value: a list of calls, or such a list as JSON text; null is an empty list.
        role: of the message.

    Raises:
        BadMessage: a call is no call of a function, or ``role`` calls nothing; ``field`` begins with ``tool_calls``.
    """
    given = _parse_json(value, "must be a list of calls, or such a list as JSON text", "tool_calls")
    values = [] if given is None else list_values(given)
    if values is None:
        raise BadMessage(f"must be a list, is {describe_kind(given)}", "tool_calls")
    if values and role != "assistant":
        raise BadMessage("belong to a message of the role assistant; leave them out", "tool_calls")
    return [_read_call(call, f"tool_calls[{index}]") for index, call in enumerate(values)]


def _read_call(call: object, field: str) -> dict[str, Any]:
    """OpenAI's call of a function; ``{"name", "arguments"}`` alone, as templates also take it, is completed."""
    if not isinstance(call, Mapping):
        raise BadMessage(f"must be an object, is {describe_kind(call)}", field)
    if call.get("type") not in (None, "function"):
        raise BadMessage(f"is {call['type']!r}; only calls of functions are read", f"{field}.type")
    nested = not is_empty(call.get("function"))
    function, place = (call["function"], f"{field}.function") if nested else (call, field)
    if not isinstance(function, Mapping) or is_empty(function.get("name")):
        raise BadMessage("is required", f"{place}.name")
    name = check_text(function["name"], f"{place}.name")
    spelled = _find_arguments(function, place)
    arguments = _write_arguments(function.get(spelled), f"{place}.{spelled}")
    found: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return found if is_empty(call.get("id")) else {"id": check_text(call["id"], f"{field}.id"), **found}


def _find_arguments(function: Mapping[Any, Any], field: str) -> str:
    """Find the field of the arguments. Llama's calls name them ``parameters``, Anthropic's ``input``.

    Raises:
        BadMessage: there are two of them that differ.
    """
    held = [name for name in ARGUMENTS if not is_empty(function.get(name))]
    if any(function[name] != function[held[0]] for name in held):
        raise BadMessage(f"differs from `{held[0]}`; send one of them", f"{field}.{held[1]}")
    return held[0] if held else ARGUMENTS[0]


def _write_arguments(value: object, field: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "{}"
    if isinstance(value, str):
        parsed = parse_arguments(value)
        return check_text(value if parsed is None else _dump(parsed, field), field)
    if not isinstance(value, Mapping):
        raise BadMessage(f"must be an object, or its JSON as text, is {describe_kind(value)}", field)
    return check_text(_dump(value, field), field)


def parse_arguments(text: str) -> dict[str, Any] | None:
    """The arguments of a tool call as an object; None where the text is not the JSON of one, written once or twice."""
    try:
        value = json.loads(text)
        value = json.loads(value) if isinstance(value, str) else value
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _dump(value: object, field: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadMessage(f"cannot be written as JSON: {error}", field) from None


def _parse_json(value: object, problem: str, field: str = "") -> object:
    """Parse JSON text; any other value stays.

    Raises:
        BadMessage: the text is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadMessage(problem, field) from None


def _read_tool(given: object, field: str) -> dict[str, Any]:
    tool = _parse_json(given, "must be a function, or one as JSON text", field)
    if not isinstance(tool, Mapping):
        raise BadMessage(f"must be an object, is {describe_kind(tool)}", field)
    if tool.get("type") not in (None, "function"):
        raise BadMessage(f"is {tool['type']!r}; only functions are read", f"{field}.type")
    nested = not is_empty(tool.get("function"))
    told, place = (tool["function"], f"{field}.function") if nested else (tool, field)
    if not isinstance(told, Mapping) or is_empty(told.get("name")):
        raise BadMessage("is required", f"{place}.name")
    function = {name: _drop_nulls(held) for name, held in told.items() if held is not None}
    if not nested:
        function.pop("type", None)
    check_text(_dump(function, field), field)
    return {"type": "function", "function": function}


def check_texts(value: object, field: str = "") -> None:
    """Refuse lone surrogates anywhere in a JSON value.

    Raises:
        BadMessage: there is one.
    """
    check_text(_dump(value, field), field)


def _drop_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _drop_nulls(held) for name, held in value.items() if held is not None}
    values = list_values(value)
    return value if values is None else [_drop_nulls(each) for each in values]
