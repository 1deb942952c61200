"""Read what a model writes, while it is written, into the parts of a message: thoughts, content and calls. Pure.

What may still become a mark is held back. What looks like a call and is none, since it is cut off, is no JSON or names
no tool of the request, is content: nothing that the model wrote is lost.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tureen.tool_calls import parse_arguments
from tureen_serve.generation.tool_use import ToolUse

BEGIN, END = "<think>", "</think>"
Thoughts = Literal["none", "possible", "begun"]
Kind = Literal["thoughts", "content"]


@dataclass(frozen=True)
class TextPart:
    """The next characters of the thoughts or of the content."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class CallPart:
    """A call of a tool. ``arguments`` is the JSON text of an object."""

    name: str
    arguments: str


Part = TextPart | CallPart


class MessageReader:
    """Reads one message.

    Args:
        use: the tools that may be called; None if there are none.
        thoughts: whether the model's template has thoughts, and whether the prompt has begun them.
    """

    def __init__(self, use: ToolUse | None = None, thoughts: Thoughts = "none") -> None:
        self._use = use
        self._state: Literal["start", "thoughts", "answer", "content", "call"] = "answer"
        if thoughts != "none":
            self._state = "start" if thoughts == "possible" else "thoughts"
        self._held = ""
        self._thought = False
        self._calls = 0

    def push(self, text: str) -> list[Part]:
        """Read the next characters."""
        self._held += text
        return self._read(last=False)

    def close(self) -> list[Part]:
        """End the message and read what was held back."""
        return self._read(last=True)

    def _read(self, last: bool) -> list[Part]:
        found: list[Part] = []
        while True:
            before = self._state, self._held
            found += getattr(self, f"_read_{self._state}")(last)
            if before == (self._state, self._held):
                return found

    def _read_start(self, last: bool) -> list[Part]:
        """Thoughts begin with their mark, or there are none."""
        text = self._held.lstrip()
        if text.startswith(BEGIN):
            self._state, self._held = "thoughts", text[len(BEGIN) :]
        elif last or not BEGIN.startswith(text):
            self._state = "answer"
        return []

    def _read_thoughts(self, last: bool) -> list[Part]:
        thoughts, end, rest = self._held.partition(END)
        if end:
            self._state, self._held, self._thought = "answer", rest, True
            return _text("thoughts", thoughts)
        return self._release("thoughts", END, last)

    def _read_answer(self, last: bool) -> list[Part]:
        """After thoughts, white space is no content. A call without an opening mark begins here or never."""
        text = self._held.lstrip()
        if not text and not last:
            return []
        if self._use is not None and not self._use.format.opening and text.startswith("{"):
            self._state, self._held = "call", text
        else:
            self._state, self._held = "content", text if self._thought else self._held
        return []

    def _read_content(self, last: bool) -> list[Part]:
        opening = self._use.format.opening.strip() if self._use is not None else ""
        if not opening:
            return self._release("content", "", last)
        text, mark, rest = self._held.partition(opening)
        if mark:
            self._state, self._held = "call", mark + rest
            return _text("content", text.rstrip())
        if self._calls and not text.strip():  # between calls
            self._held = "" if last else self._held
            return []
        return self._release("content", opening, last)

    def _read_call(self, last: bool) -> list[Part]:
        assert self._use is not None
        closing = self._use.format.closing.strip()
        body, mark, rest = self._held.partition(closing) if closing else (self._held, "", "")
        if not mark and not last:
            return []
        self._state, self._held = "content", rest
        call = _parse_call(body.removeprefix(self._use.format.opening.strip()), self._use)
        if call is None:
            return _text("content", body + mark)
        self._calls += 1
        return [call] if self._use.parallel or self._calls == 1 else []

    def _release(self, kind: Kind, mark: str, last: bool) -> list[Part]:
        """Release what no later character can make a part of a mark."""
        doubtful = 0 if last else next((n for n in range(len(mark) - 1, 0, -1) if self._held.endswith(mark[:n])), 0)
        if mark and not last and kind == "content":
            spaces = len(self._held) - doubtful - len(self._held[: len(self._held) - doubtful].rstrip())
            doubtful += spaces  # they are dropped before a call
        text, self._held = self._held[: len(self._held) - doubtful], self._held[len(self._held) - doubtful :]
        return _text(kind, text)


def find_thoughts(template: str, tail: str, begun: str = "") -> Thoughts:
    """Find whether a message may have thoughts.

    Args:
        template: the source of the chat template.
        tail: the end of the prompt that it wrote.
        begun: the beginning of the message, if the prompt has it.
    """
    if END not in template:
        return "none"
    if begun.strip():
        return "begun" if begun.rfind(BEGIN) > begun.rfind(END) else "none"
    return "begun" if tail.rstrip().endswith(BEGIN) else "possible"


def read_message_parts(text: str, reader: MessageReader) -> tuple[str, str, Sequence[CallPart]]:
    """Read a whole message: its thoughts, its content and its calls."""
    parts = [*reader.push(text), *reader.close()]
    told = {
        kind: "".join(part.text for part in parts if isinstance(part, TextPart) and part.kind == kind)
        for kind in ("thoughts", "content")
    }
    return told["thoughts"].strip(), told["content"], [part for part in parts if isinstance(part, CallPart)]


def _text(kind: Kind, text: str) -> list[Part]:
    return [TextPart(kind, text)] if text else []


def _parse_call(text: str, use: ToolUse) -> CallPart | None:
    """Parse a call; None where it is none of a tool of the request."""
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or call.get("name") not in use.names:
        return None
    arguments = call.get(use.format.arguments, {})
    if isinstance(arguments, str):
        arguments = parse_arguments(arguments)
    if not isinstance(arguments, dict):
        return None
    try:
        return CallPart(call["name"], json.dumps(arguments, ensure_ascii=False, allow_nan=False))
    except ValueError:
        return None
