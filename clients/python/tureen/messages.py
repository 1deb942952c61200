"""One canonical form of a chat message, however OpenAI's clients, vLLM, TRL or ``datasets`` write it. Pure.

A canonical message is a dict with ``role`` and ``content``, and with those of ``name``, ``reasoning_content``,
``tool_calls`` and ``tool_call_id`` that hold something:

* Null fields, empty texts and empty lists are left out. ``content`` is null where an assistant only calls tools or
  only thinks.
* A list of text parts is one text, joined without a separator.
* ``developer`` is ``system``. ``reasoning`` and ``thinking`` are ``reasoning_content``.
* The arguments of a tool call are JSON text, as on OpenAI's wire: ``{"city": "Oslo"}``. Text that is not a JSON object
  stays as it is. ``parameters``, ``input`` and ``args`` are ``arguments``.
* A refusal without content is the content.

Any other field with a value is an error that names the field.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from tureen.message_fields import BadMessage, check_text, describe_kind, is_empty, list_values
from tureen.tool_calls import read_calls

Role = Literal["system", "user", "assistant", "tool"]
CanonicalMessage = dict[str, Any]

ROLES: tuple[str, ...] = get_args(Role)
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
# the last two are those of OpenAI's Responses
PARTS = {"text": "text", "refusal": "refusal", "input_text": "text", "output_text": "text"}
READ = {"role", "content", "name", "tool_calls", "tool_call_id", "refusal", *THOUGHTS}
# about no text: of a reply, and a hint to a cache
IGNORED = {"annotations", "cache_control"}
UNREAD = {
    "audio": "only text is read; send its transcript as `content`",
    "function_call": "send the call in `tool_calls`",
}


def read_messages(value: object, *, strict: bool = True) -> list[CanonicalMessage]:
    """Bring a list of messages into the canonical form.

    Args:
        value: a list of objects.
        strict: refuse unknown fields with a value; else they are left out.

    Raises:
        BadMessage: ``value`` is no list of messages; ``field`` begins with the message's index, as ``[1].content``.
    """
    values = list_values(value)
    if values is None:
        raise BadMessage(f"must be a list of messages, is {describe_kind(value)}")
    found = []
    for index, each in enumerate(values):
        try:
            found.append(read_message(each, strict=strict))
        except BadMessage as error:
            raise BadMessage(error.problem, f"[{index}].{error.field}".removesuffix(".")) from None
    return found


def read_message(value: object, *, strict: bool = True) -> CanonicalMessage:
    """Bring one message into the canonical form; a canonical message stays as it is.

    Args:
        value: an object with ``role`` and ``content``.
        strict: refuse unknown fields with a value; else they are left out.

    Raises:
        BadMessage: it is no message, or has content that no text model reads.
    """
    if not isinstance(value, Mapping):
        raise BadMessage(f"must be an object with `role` and `content`, is {describe_kind(value)}")
    _check_fields(value, strict)
    role = _read_role(value)
    thoughts, calls = _read_thoughts(value), read_calls(value.get("tool_calls"), role)
    message: CanonicalMessage = {"role": role, "content": _read_content(value, spare=bool(calls or thoughts))}
    for name in ("name", "tool_call_id"):
        if not is_empty(value.get(name)):
            message[name] = check_text(value[name], name)
    if "tool_call_id" in message and role != "tool":
        raise BadMessage("belongs to a message of the role tool; leave it out", "tool_call_id")
    if thoughts:
        message["reasoning_content"] = thoughts
    if calls:
        message["tool_calls"] = calls
    return message


def find_unknown_fields(value: Mapping[Any, Any]) -> dict[Any, Any]:
    """Find the unknown fields of a message that have a value."""
    known = READ | IGNORED | UNREAD.keys()
    return {name: held for name, held in value.items() if name not in known and not is_empty(held)}


def join_content(message: Mapping[str, Any]) -> str:
    """Return the text of a canonical message, empty if it has none."""
    return message["content"] or ""


def _check_fields(value: Mapping[Any, Any], strict: bool) -> None:
    for name, advice in UNREAD.items():
        if not is_empty(value.get(name)):
            raise BadMessage(advice, name)
    unknown = find_unknown_fields(value) if strict else {}
    if unknown:
        raise BadMessage("is not a field of a message that is read here; leave it out", str(next(iter(unknown))))


def _read_role(value: Mapping[Any, Any]) -> str:
    if "role" not in value:
        raise BadMessage("is required", "role")
    role = "system" if value["role"] == "developer" else value["role"]
    if role not in ROLES:
        raise BadMessage(f"unknown role {role!r}: should be 'system', 'user', 'assistant' or 'tool'", "role")
    return str(role)


def _read_content(value: Mapping[Any, Any], spare: bool) -> str | None:
    """Read the text. ``spare`` says that the message has calls or thoughts: then it may be None."""
    if "content" not in value and not spare and is_empty(value.get("refusal")):
        raise BadMessage("is required", "content")
    content, refusal = _join_parts(value.get("content")), value.get("refusal")
    if not is_empty(refusal):
        if content:
            raise BadMessage("stands beside `content`; send one of them", "refusal")
        return check_text(refusal, "refusal")
    if content is None and not spare:
        raise BadMessage("is null and the message says nothing else; send a text", "content")
    return None if spare and not content else content


def _join_parts(content: object) -> str | None:
    if content is None or isinstance(content, str):
        return None if content is None else check_text(content, "content")
    parts = list_values(content)
    if parts is None:
        raise BadMessage(f"must be a text or a list of text parts, is {describe_kind(content)}", "content")
    return "".join(_read_part(part, f"content[{index}]") for index, part in enumerate(parts)) if parts else None


def _read_part(part: object, field: str) -> str:
    advice = 'only text is read: a part of content is {"type": "text", "text": "..."}'
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise BadMessage(advice, field)
    name = PARTS.get(part["type"])
    if name is None:
        raise BadMessage(f"is of the type {part['type']!r}, and {advice}", field)
    for other, held in part.items():
        if other not in ("type", name) and other not in IGNORED and not is_empty(held):
            raise BadMessage(f"is not read, and {advice}", f"{field}.{other}")
    return check_text(part.get(name), f"{field}.{name}")


def _read_thoughts(value: Mapping[Any, Any]) -> str:
    given = {name: value[name] for name in THOUGHTS if not is_empty(value.get(name))}
    texts = {name: check_text(thoughts, name) for name, thoughts in given.items()}
    if len(set(texts.values())) > 1:
        first, second, *_ = texts
        raise BadMessage(f"differs from `{first}`; send one of them", second)
    return next(iter(texts.values()), "")
