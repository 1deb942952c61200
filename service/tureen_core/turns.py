"""The turns of a conversation, and what is refused in them before a template renders them."""

from collections.abc import Mapping, Sequence
from typing import Any

from tureen.errors import Unprocessable
from tureen.messages import ROLES

Turn = dict[str, Any]
Messages = Sequence[Mapping[str, Any]]  # canonical ones, see tureen.messages


def check_messages(messages: Messages) -> None:
    """Refuse what a template would render in silence: no turns, unknown roles, a late system turn.

    Raises:
        Unprocessable: ``param`` is ``messages[i].role`` or ``messages[i].content``.
    """
    if not messages:
        raise Unprocessable("a conversation needs at least one message", param="messages")
    for index, message in enumerate(messages):
        role = message.get("role")
        if role not in ROLES:
            raise Unprocessable(f"unknown role {role!r}; use {', '.join(ROLES)}", param=f"messages[{index}].role")
        if role == "system" and index:
            raise Unprocessable("a system message stands first or not at all", param=f"messages[{index}].role")
        if message.get("content") is not None or not _says_more(message):
            check_text(message.get("content"), f"messages[{index}].content")


def _says_more(message: Mapping[str, Any]) -> bool:
    """Whether a message without content calls tools or thinks."""
    return message["role"] == "assistant" and bool(message.get("tool_calls") or message.get("reasoning_content"))


def check_finished(messages: Messages) -> None:
    """Refuse a conversation whose last turn is not the assistant's: there is no answer to score."""
    check_messages(messages)
    if messages[-1]["role"] != "assistant":
        where = f"messages[{len(messages) - 1}].role"
        raise Unprocessable("the last message must be the assistant's: it is what is scored", param=where)


def check_text(text: object, param: str) -> None:
    """Refuse what is no text, and lone surrogates, which no tokenizer takes."""
    if not isinstance(text, str):
        raise Unprocessable(f"a text is needed here, not {type(text).__name__}", param=param)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unprocessable(f"a lone surrogate at character {error.start} is not Unicode", param=param) from None
