"""What a chat template writes around an answer, and the marks of the end that policies leave on their texts."""

from functools import cached_property
from typing import Any

from tureen.errors import Unprocessable
from tureen_core.chat_template import ChatTemplate
from tureen_core.control_marks import ControlMarks, split_end, strip_marks
from tureen_core.turns import Turn

ASKED: Turn = {"role": "user", "content": "?"}
ANSWER = "answer"


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

    @cached_property
    def opening(self) -> str:
        """What the template writes to open an answer, empty where that cannot be told from a text."""
        closed, opened = self._write([ASKED], False), self._write([ASKED], True)
        return opened.removeprefix(closed) if opened.startswith(closed) else ""

    @cached_property
    def closing(self) -> str:
        """What the template writes after an answer, empty where it has none."""
        return self._write([ASKED, {"role": "assistant", "content": ANSWER}], False).rpartition(ANSWER)[2]

    @cached_property
    def end_marks(self) -> frozenset[str]:
        """EOS, padding, and the marks by which the template ends a turn."""
        return frozenset({*self._ends, *self._marks.find_marks(self.closing)})

    def find_last_answer(self, text: str) -> int:
        """The character at which a text's last answer begins, 0 if none is seen."""
        found = text.rfind(self.opening) if self.opening else -1
        return found + len(self.opening) if found >= 0 else 0

    def strip_end_marks(self, text: str) -> str:
        """A message's text without the marks of the end at either end of it; else as it is."""
        return strip_marks(text, self.end_marks)

    def tidy_text(self, text: str) -> str:
        """A rendered text with the marks at its end as the template writes them, once, and none before it.

        A text as the template writes it stays as it is, but for white space after it. Marks that stand before the
        last answer's first word are removed too.
        """
        text, ends = self._strip_padding(text), self._marks.find_marks(self.closing)
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
        """A text without marks of the end before it, but for those with which the template itself begins."""
        own = self._write([ASKED], False)
        begins = own[: len(own) - len(strip_marks(own + "?", self.end_marks)) + 1]
        return text if begins and text.startswith(begins) else _strip_beginning(text, self.end_marks)

    def _write(self, turns: list[Turn], generate: bool) -> str:
        try:
            return self._template.write_messages(turns, generate)
        except Unprocessable:
            return ""


def _strip_beginning(text: str, marks: frozenset[str]) -> str:
    return strip_marks(text + "?", marks)[:-1]
