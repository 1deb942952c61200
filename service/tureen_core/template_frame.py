"""The text that a chat template writes around an answer, and end marks that policies leave on their texts."""

import re
from functools import cached_property
from typing import Any

from tureen.errors import Unprocessable
from tureen_core.chat_template import ChatTemplate
from tureen_core.control_marks import ControlMarks, split_end, strip_marks
from tureen_core.turns import Turn

ASKED: Turn = {"role": "user", "content": "?"}
ANSWER = "answer"
QUESTION = "question"


class TemplateFrame:
    """The frame of an answer in one template.

    Args:
        tokenizer: its EOS and padding are marks of the end, as is what the template ends a turn with.
        template: the tokenizer's.
        marks: the tokenizer's.
    """

    def __init__(self, tokenizer: Any, template: ChatTemplate, marks: ControlMarks) -> None:
        self._template = template
        self._marks = marks
        self._ends = {mark for mark in (tokenizer.eos_token, tokenizer.pad_token) if mark}
        begin = re.escape(tokenizer.bos_token or "")
        self._begins = re.compile(rf"\A\s*(?:{begin}\s*)*(?={begin})" if begin else r"(?!)")

    @cached_property
    def opening(self) -> str:
        """The text that the template writes before an answer, empty if it cannot be recognised."""
        closed, opened = self._write([ASKED], False), self._write([ASKED], True)
        return opened.removeprefix(closed) if opened.startswith(closed) else ""

    @cached_property
    def opening_ids(self) -> tuple[int, ...]:
        """The ids of :attr:`opening`."""
        return tuple(self._marks.encode_text(self.opening)[0])

    @cached_property
    def closing(self) -> str:
        """The text that the template writes after an answer, empty if there is none."""
        return self._write([ASKED, {"role": "assistant", "content": ANSWER}], False).rpartition(ANSWER)[2]

    @cached_property
    def turn_border(self) -> str:
        """The text that the template writes between a user's message and its answer; empty if it is not recognised."""
        return self._write([{"role": "user", "content": QUESTION}], True).rpartition(QUESTION)[2]

    @cached_property
    def end_marks(self) -> frozenset[str]:
        """EOS, padding, and the marks by which the template ends a turn."""
        return frozenset({*self._ends, *self._marks.find_marks(self.closing)})

    def find_last_answer(self, text: str) -> int:
        """Find the character at which a text's last answer begins, 0 if none is found."""
        found = text.rfind(self.opening) if self.opening else -1
        return found + len(self.opening) if found >= 0 else 0

    def strip_end_marks(self, text: str) -> str:
        """Remove end marks at both ends of a message's text."""
        return strip_marks(text, self.end_marks)

    def tidy_text(self, text: str) -> str:
        """Write the end marks of a rendered text once, as the template does, and remove marks before the text.

        A mark of the beginning that stands several times is written once, without white space before it.
        A text in the template's own form keeps all but the white space after it. Marks before the last answer's first
        word are removed too.
        """
        text, ends = self._strip_padding(text), self._marks.find_marks(self.closing)
        text = self._begins.sub("", text)
        border = self.find_last_answer(text)
        before, run = split_end(text[border:], self.end_marks)
        answer = strip_marks(before, self.end_marks)
        found = self._marks.find_marks(run)
        if not found:
            return text[:border] + answer + run
        if found == (ends or found[:1]):
            answer += run[: len(run) - len(run.lstrip())]  # as it was rendered: this space is the answer's
        return text[:border] + answer + (self.closing if set(found) & set(ends) else "")

    def _strip_padding(self, text: str) -> str:
        """Remove end marks before a text, except those with which the template begins."""
        own = self._write([ASKED], False)
        begins = own[: len(own) - len(strip_marks(own + "?", self.end_marks)) + 1]
        return text if begins and text.startswith(begins) else _strip_beginning(text, self.end_marks)

    def _write(self, turns: list[Turn], generate: bool) -> str:
        try:
            return self._template.write_messages(turns, "answer" if generate else "nothing")
        except Unprocessable:
            return ""


def _strip_beginning(text: str, marks: frozenset[str]) -> str:
    return strip_marks(text + "?", marks)[:-1]
