"""The control marks of one tokenizer, such as ``<|im_end|>``, in a template's frame and in a message's text.

A tokenizer reads a mark as a control token wherever it stands. A message that holds marks could so end its turn and
forge another one. :meth:`ControlMarks.hide_marks` writes each mark of a message in characters for private use, which
no template changes. :meth:`ControlMarks.encode_text` reads the other marks, the template's, as control tokens, and the
hidden marks as plain characters.
"""

import json
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

from tokenizers import Encoding, Tokenizer

ESCAPE = "\U000f0000"
FIRST = 0xF0001


class ControlMarks:
    """The special tokens of a Hugging Face tokenizer.

    Args:
        tokenizer: a fast one where texts with hidden marks are to be located in characters.
        split: whether what stands between two marks is always encoded by itself.
    """

    def __init__(self, tokenizer: Any, split: bool = False) -> None:
        self.tokenizer = tokenizer
        self.split = split
        added = tokenizer.added_tokens_decoder.values()
        marks = {each.content for each in added if each.special} | set(tokenizer.all_special_tokens)
        self.marks = sorted((mark for mark in marks if mark.strip()), key=lambda mark: (-len(mark), mark))
        self._pattern = re.compile("|".join(map(re.escape, self.marks)) or r"(?!)")
        self._hidden = re.compile(rf"{ESCAPE}(.)", re.DOTALL)

    def find_marks(self, text: str) -> list[str]:
        """Find the marks in a text, in order."""
        return self._pattern.findall(text)

    def hide_marks(self, text: str) -> str:
        """Hide the marks in a message's text."""
        kept = escape_text(text)
        return self._pattern.sub(lambda found: ESCAPE + chr(FIRST + self.marks.index(found[0])), kept)

    def show_marks(self, text: str) -> str:
        """Undo :meth:`hide_marks`."""
        return self._hidden.sub(lambda found: ESCAPE if found[1] == ESCAPE else self.marks[ord(found[1]) - FIRST], text)

    def encode_text(self, text: str, border: int = 0) -> tuple[list[int], int]:
        """Encode a text with hidden marks. Returns the ids, and the number of ids before character ``border``.

        The number is 0 if ``border`` is 0 or the end of the text, if a token spans it, and if the tokenizer gives no
        offsets.
        """
        wanted = 0 < border < len(text)
        if ESCAPE not in text and not self.split:
            encoded = self.tokenizer(text, add_special_tokens=False)
            located = wanted and self.tokenizer.is_fast
            return encoded["input_ids"], _count_before(encoded.encodings[0], border) if located else 0
        ids: list[int] = []
        before, start = 0, 0
        for piece in self._split(text):
            end = start + len(piece)
            if wanted and start < border <= end:
                before = self._count_in_piece(piece, border - start, len(ids))
            ids += self._encode_piece(piece)
            start = end
        return ids, before

    def encode_plain(self, text: str) -> list[int]:
        """Encode a text in which no mark is a control token."""
        if not self.tokenizer.is_fast:
            ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            return ids
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _plain(self) -> Tokenizer:
        """A second tokenizer for plain text. Splitting marks is a state of a fast tokenizer, shared by all threads."""
        copied = Tokenizer.from_str(_forget_marks(self.tokenizer.backend_tokenizer.to_str(), self.marks))
        copied.no_truncation()
        copied.no_padding()
        copied.encode_special_tokens = True
        return copied

    def _split(self, text: str) -> list[str]:
        pieces, start = [], 0
        for found in self._pattern.finditer(text):
            pieces += [text[start : found.start()], found[0]]
            start = found.end()
        return [piece for piece in (*pieces, text[start:]) if piece]

    def _encode_piece(self, piece: str) -> list[int]:
        if ESCAPE in piece:
            return self.encode_plain(self.show_marks(piece))
        ids: list[int] = self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return ids

    def _count_in_piece(self, piece: str, border: int, earlier: int) -> int:
        """Count the tokens before a character of a piece after ``earlier`` tokens, 0 if that is unclear."""
        if border == len(piece):
            return earlier + len(self._encode_piece(piece))
        if not self.tokenizer.is_fast:
            return 0
        if ESCAPE not in piece:
            found = _count_before(self.tokenizer(piece, add_special_tokens=False).encodings[0], border)
        else:
            encoded = self._plain.encode(self.show_marks(piece), add_special_tokens=False)
            found = _count_before(encoded, len(self.show_marks(piece[:border])))
        return earlier + found if found else 0


def escape_text(text: str) -> str:
    """Escape a text for :meth:`ControlMarks.encode_text`. Its marks are read as control tokens."""
    return text.replace(ESCAPE, ESCAPE * 2)


def map_texts(change: Callable[[str], str], value: Any) -> Any:
    """Change all texts in a value, also the names of fields. Tuples become lists."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {map_texts(change, name): map_texts(change, each) for name, each in value.items()}
    return [map_texts(change, each) for each in value] if isinstance(value, list | tuple) else value


def strip_marks(text: str, marks: Collection[str]) -> str:
    """Remove the marks at both ends of a text, with the white space around them."""
    if not marks:
        return text
    one = "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))
    text = re.sub(rf"\A\s*(?:(?:{one})\s*)+", "", text)
    return split_end(text, marks)[0]


def split_end(text: str, marks: Collection[str]) -> tuple[str, str]:
    """Split a text before the marks at its end. The second part is empty if there are none."""
    end = len(text)
    while True:
        found = _skip_space(text, end)
        mark = next((each for each in marks if text.endswith(each, 0, found)), None)
        if mark is None:
            break
        end = found - len(mark)
    kept = found if end < len(text) else len(text)
    return text[:kept], text[kept:]


def _forget_marks(tokenizer: str, marks: Collection[str]) -> str:
    """Rename the marks among the pieces of a Unigram model, which would read them in plain text too.

    The new names are random, so that nobody can write them. The ids of all other tokens stay: added tokens that are no
    pieces are numbered in their order.
    """
    content = json.loads(tokenizer)
    if content["model"]["type"] != "Unigram":
        return tokenizer
    pieces = content["model"]["vocab"]
    known = {piece for piece, _ in pieces} & set(marks)
    secret = secrets.token_hex(16)
    content["model"]["vocab"] = [[secret + piece if piece in known else piece, score] for piece, score in pieces]
    content["added_tokens"] = [each for each in content["added_tokens"] if each["content"] not in known]
    return json.dumps(content)


def _skip_space(text: str, end: int) -> int:
    """Find the beginning of the white space before ``end``."""
    while end and text[end - 1].isspace():
        end -= 1
    return end


def _count_before(encoded: Encoding, border: int) -> int:
    """Count the tokens before a character, 0 if a token spans it."""
    last, first = encoded.char_to_token(border - 1), encoded.char_to_token(border)
    for token, side, before in ((last, 1, 1), (first, 0, 0)):
        span = None if token is None else encoded.token_to_chars(token)
        if token is not None and span is not None and span[side] == border:
            return int(token) + before
    return 0
