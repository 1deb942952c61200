"""Read items of OpenAI's Responses API as messages: for ``/v1/responses``, and as NeMo-Gym sends them. Pure."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from tureen.errors import Unprocessable
from tureen.message_fields import BadMessage
from tureen.messages import CanonicalMessage, read_message
from tureen.wire import Many, Text


class OpenObject(BaseModel):
    """A part of a body. Unknown fields are kept."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class ItemPart(OpenObject):
    """A part of a message: a text or a refusal."""

    text: Text | None = None
    refusal: Text | None = None


class ResponseItem(OpenObject):
    """An item of OpenAI's Responses API. An item without a type is a message."""

    type: str = "message"
    role: str = ""
    content: Text | Annotated[list[ItemPart], Many()] | None = None


def read_items(items: Sequence[ResponseItem], param: str, join: bool = False) -> list[CanonicalMessage]:
    """Read items as messages: texts, calls of functions, their outputs, and reasoning as the next answer's thoughts.

    Args:
        param: the field of the list.
        join: make one message of neighbours of one role.

    Raises:
        Unprocessable: an item is something else, or no text.
    """
    turns: list[CanonicalMessage] = []
    thoughts = ""
    for place, item in enumerate(items):
        where = f"{param}[{place}]"
        if item.type == "reasoning":
            thoughts += _read_reasoning(item)
            continue
        turn = _read_turn(item, where)
        if turn["role"] == "assistant" and thoughts:
            turn, thoughts = {**turn, "reasoning_content": thoughts}, ""
        called = item.type == "function_call" and turns and turns[-1]["role"] == "assistant"
        if called or (join and turns and turn["role"] == turns[-1]["role"] != "tool"):
            turns[-1] = _join_turns(turns[-1], turn)
        else:
            turns.append(turn)
    return turns


def _read_turn(item: ResponseItem, where: str) -> CanonicalMessage:
    fields = item.model_extra or {}
    if item.type == "message":
        given: dict[str, Any] = {"role": item.role, "content": _read_text(item, where)}
    elif item.type == "function_call":
        call = {"id": fields.get("call_id"), "name": fields.get("name"), "arguments": fields.get("arguments")}
        given = {"role": "assistant", "content": None, "tool_calls": [call]}
    elif item.type == "function_call_output":
        output = fields.get("output")
        given = {"role": "tool", "content": output, "tool_call_id": fields.get("call_id")}
        if isinstance(output, list):
            parts = ResponseItem.model_validate({"content": output})
            given["content"] = _read_text(parts, where)
    else:
        known = "messages, reasoning, function_call and function_call_output"
        raise Unprocessable(f"an item of type {item.type} cannot be read; send {known}", param=where)
    try:
        return read_message(given)
    except BadMessage as error:
        raise Unprocessable(error.problem, param=f"{where}.{error.field}") from None


def _read_reasoning(item: ResponseItem) -> str:
    """The reasoning's text, else its summary; what is no Unicode is left out, since it goes back as it came."""
    parts = item.content if isinstance(item.content, list) else []
    texts = [item.content] if isinstance(item.content, str) else [part.text for part in parts]
    if not any(texts):
        summary = (item.model_extra or {}).get("summary")
        texts = [part.get("text") for part in summary if isinstance(part, dict)] if isinstance(summary, list) else []
    kept = "".join(text for text in texts if isinstance(text, str))
    return kept.encode(errors="ignore").decode()


def _read_text(item: ResponseItem, where: str) -> str:
    if isinstance(item.content, str):
        return item.content
    texts = [part.refusal if part.text is None else part.text for part in item.content or ()]
    if any(text is None for text in texts):
        raise Unprocessable("only text can be read; remove the other parts", param=f"{where}.content")
    return "".join(text or "" for text in texts)


def _join_turns(first: CanonicalMessage, second: CanonicalMessage) -> CanonicalMessage:
    content = (first["content"] or "") + (second["content"] or "")
    calls = [*first.get("tool_calls", ()), *second.get("tool_calls", ())]
    thoughts = first.get("reasoning_content", "") + second.get("reasoning_content", "")
    return read_message({**first, "content": content, "tool_calls": calls, "reasoning_content": thoughts})
