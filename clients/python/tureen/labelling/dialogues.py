"""Conversations as the plain text that public preference files use, in the two styles that are common.

``DSP`` is the style of Domain-Specific Preference (arXiv 2309.03126), ``HH`` that of Anthropic's hh-rlhf (arXiv
2204.05862). Both know a user and an assistant only, and neither can quote what begins a turn.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tureen.errors import Unprocessable
from tureen.wire import Message


@dataclass(frozen=True)
class Style:
    """How a turn begins: ``head`` finds one; ``user`` and ``assistant`` write one; ``between`` joins turns."""

    name: str
    head: re.Pattern[str]
    user: str
    assistant: str
    between: str


DSP = Style(
    "DSP",
    re.compile(r"(?:\A\s*|\r?\n\r?\n)## (?:Human|Assistant):(?:\r?\n)?"),
    "## Human:\n",
    "## Assistant:\n",
    "\n\n",
)
HH = Style("hh-rlhf", re.compile(r"(?:\A\s*|\r?\n\r?\n)(?:Human|Assistant):[ ]?"), "\n\nHuman: ", "\n\nAssistant: ", "")


def write_dialogue(messages: Sequence[Message], style: Style) -> str:
    """The conversation as one string, from which the same messages can be read.

    Raises:
        Unprocessable: the style has no turn of such a role, or a message holds what begins a turn.
    """
    written = style.between.join(_head(message, style) + message.text for message in messages)
    if _contents(written, style) != [message.text for message in messages]:
        raise Unprocessable(f"a message holds what begins a turn in {style.name}'s text; take a form of messages")
    return written


def write_prompt_and_answers(prompt: Sequence[Message], answers: Sequence[Sequence[Message]]) -> tuple[str, list[str]]:
    """hh-rlhf's text, cut before the space of each answer, so that the parts join without loss.

    Raises:
        Unprocessable: as :func:`text`, or an answer is more than one assistant's message.
    """
    for answer in answers:
        if len(answer) != 1:
            raise Unprocessable("an answer of several messages is no plain text; take a form of messages")
        write_dialogue([*prompt, *answer], HH)
    cue = HH.assistant.rstrip(" ")
    return write_dialogue(prompt, HH) + cue, [f" {answer[0].text}" for answer in answers]


def _contents(written: str, style: Style) -> list[str]:
    heads = list(style.head.finditer(written))
    ends = [head.start() for head in heads[1:]] + [len(written)]
    return [written[head.end() : end] for head, end in zip(heads, ends, strict=True)]


def _head(message: Message, style: Style) -> str:
    heads = {"user": style.user, "assistant": style.assistant}
    if message.role not in heads:
        raise Unprocessable(f"{style.name}'s text has no {message.role} turn; take a form of messages")
    if held := next((name for name in ("tool_calls", "reasoning_content") if getattr(message, name)), None):
        raise Unprocessable(f"{style.name}'s text has no place for `{held}`; take a form of messages")
    return heads[message.role]
