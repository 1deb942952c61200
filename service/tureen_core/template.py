"""The only place that turns a conversation into token ids; training and serving both call it.

BOS once, EOS as an id (never as text that a tokenizer could split), truncation from the left so that the answer
stays, and the split of a prompt from its candidates so that a runtime can compute the prompt once.

Two things a template could do are settled here. Text that spells a special token (``<|im_end|>`` inside a user's
message) becomes that token, as it does in ``apply_chat_template(tokenize=True)``, TRL and vLLM: who writes the content
can write a turn, so a caller that scores untrusted text takes such marks out of it first. A template that prints the
date is given :data:`TODAY`, since a reward must not depend on the calendar.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from tureen.errors import Unprocessable
from tureen_core.reading import Cut, Reading, Rendered
from tureen_core.turns import Messages, check_messages, check_text

TODAY = datetime(2024, 7, 26)  # what the templates of Llama 3 print where they cannot ask for the date
CANARY: Messages = (
    {
        "role": "user",
        "content": "Why, in 1492, did 3 ships — naïve or not — sail?\n\n\tSay it in code: x_1 += 0.5;",
    },
    {"role": "assistant", "content": "  Für Gewürze & gold…  猫も。\n```py\nprint('ok')\n```"},
)


class Renderer:
    """Renders for one tokenizer and one reading.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template, a pad token, and EOS unlike it.
        reading: the artifact's.

    Raises:
        ValueError: no EOS id where one must be appended, or pad equal to EOS.
    """

    def __init__(self, tokenizer: Any, reading: Reading) -> None:
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
            raise ValueError("the tokenizer needs a pad token of its own: a pad equal to EOS hides the end of a text")
        if reading.eos == "append" and tokenizer.eos_token_id is None:
            raise ValueError("the reading appends EOS and the tokenizer has none")
        self.tokenizer = tokenizer
        self.reading = reading
        self._bos = tokenizer.bos_token_id if reading.bos == "add" else None
        self._eos = tokenizer.eos_token_id if reading.eos == "append" else None
        self._spaces: dict[int, bool] = {}

    def digest(self) -> str:
        """Sixteen hex digits over the template and what it makes of a fixed conversation, specials included.

        It does not depend on where a text is truncated.
        """
        seen = {
            "template": self.tokenizer.chat_template,
            "bos": self.tokenizer.bos_token_id,
            "eos": self.tokenizer.eos_token_id,
            "canary": self.tokenize_conversation(CANARY),
        }
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:16]

    def render_conversation(self, messages: Messages, truncate: bool | Cut = True) -> Rendered:
        """Ids of a finished conversation. ``shared`` is what stands before its last answer.

        Raises:
            Unprocessable: a role is unknown or out of order, or it is too long and ``truncate`` is false.
        """
        text = self._text(messages, generate=False)
        return self._whole(text, self._last_answer(text), Cut() if truncate is True else truncate or None)

    def render_text(self, text: str, cut: Cut | None = None, specials: bool = True) -> Rendered:
        """Ids of a text that is rendered already: no template. ``shared`` is what stands before its last answer.

        Args:
            cut: what to do where it is too long; None refuses it.
            specials: BOS and EOS as the reading says, each once; without, the text's own tokens and no other.

        Raises:
            Unprocessable: it holds a lone surrogate, is too long, or has no token.
        """
        check_text(text, "text")
        return self._whole(text, self._last_answer(text), cut, specials)

    def render_ids(self, ids: Sequence[int], cut: Cut | None = None) -> Rendered:
        """Ids that the caller made, as they are.

        Raises:
            Unprocessable: there are none, too many, or one that the tokenizer does not have.
        """
        known = len(self.tokenizer)
        strange = next((each for each in ids if not 0 <= each < known), None)
        if strange is not None:
            raise Unprocessable(f"the tokenizer has no token {strange}", code="invalid_token_ids")
        return self._fit(list(ids), 0, cut)

    def tokenize_text(self, text: str, specials: bool = True) -> list[int]:
        """Ids of a text that is rendered already, however long it is; :meth:`render_text` also fits it to the limit."""
        check_text(text, "text")
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._close(self._open(ids)) if specials else ids

    def tokenize_conversation(self, messages: Messages) -> list[int]:
        """Ids of a conversation, however long it is: what :meth:`render_conversation` reads where that fits."""
        return self._close(self._read(self._text(messages, generate=False), 0)[0])

    def tokenize_prompt(self, messages: Messages) -> list[int]:
        """Ids that a policy continues: the template with its generation prompt, not closed, not truncated."""
        return self.render_prompt(messages).ids

    def render_prompt(self, messages: Messages, lead: str = "") -> Rendered:
        """Ids as :meth:`tokenize_prompt` gives them; ``shared`` counts those up to the end of ``lead``, or 0."""
        text = self._text(messages, generate=True)
        return Rendered(*self._read(text, text.find(lead) + len(lead) if lead in text else 0))

    def tokenize_plain_prompt(self, text: str) -> list[int]:
        """Ids of a bare text that a policy continues."""
        check_text(text, "prompt")
        return self._read(text, 0)[0]

    def opens_answer(self, text: str) -> bool:
        """Whether a text holds what the template writes to open an answer: then it was rendered by it."""
        return self._last_answer(text) > 0

    def render_candidates(
        self, prompt: Messages, answers: Sequence[Messages], truncate: bool | Cut = True
    ) -> list[Rendered]:
        """Ids of one prompt with each of its answers.

        ``shared`` counts the tokens before the answer, and is 0 where one spans the border or the text was truncated:
        then the whole is computed alone.

        Raises:
            Unprocessable: as :meth:`render_conversation`, for the first answer at fault.
        """
        opened, cut = self._text(prompt, generate=True), Cut() if truncate is True else truncate or None
        texts = [self._text([*prompt, *answer], generate=False) for answer in answers]
        return [self._whole(text, len(opened) if text.startswith(opened) else 0, cut) for text in texts]

    @cached_property
    def _turn(self) -> str:
        """What the template writes to open an answer, empty where that cannot be told from a text."""
        asked: Messages = ({"role": "user", "content": "?"},)
        try:
            closed, opened = self._text(asked, generate=False), self._text(asked, generate=True)
        except Unprocessable:
            return ""
        return opened.removeprefix(closed) if opened.startswith(closed) else ""

    def _last_answer(self, text: str) -> int:
        """The character at which a text's last answer begins, 0 if none is seen."""
        found = text.rfind(self._turn) if self._turn else -1
        return found + len(self._turn) if found >= 0 else 0

    def _whole(self, text: str, border: int, cut: Cut | None, specials: bool = True) -> Rendered:
        """Ids of a finished text, and how many of them stand before character ``border``."""
        ids, before = self._read(text, border, specials)
        ids = self._close(ids) if specials else ids
        return self._fit(ids, before if before < len(ids) else 0, cut)

    def _read(self, text: str, border: int, specials: bool = True) -> tuple[list[int], int]:
        """Ids of a text, not closed, and how many of them stand before character ``border``, 0 if that is unclear."""
        encoded = self.tokenizer(text, add_special_tokens=False)
        ids: list[int] = encoded["input_ids"]
        before = _tokens_before(encoded, border) if 0 < border < len(text) else 0
        opened = self._open(ids) if specials else ids
        return opened, before + len(opened) - len(ids) if before else 0

    def _text(self, messages: Messages, generate: bool) -> str:
        check_messages(messages)
        plain = [{"role": message["role"], "content": message["content"]} for message in messages]
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                plain, tokenize=False, add_generation_prompt=generate, strftime_now=TODAY.strftime
            )
        except Exception as error:  # jinja raises whatever the template says
            raise Unprocessable(f"the chat template refuses these messages: {error}", param="messages") from error
        return rendered

    def _open(self, ids: list[int]) -> list[int]:
        return [self._bos, *ids] if self._bos is not None and ids[:1] != [self._bos] else ids

    def _close(self, ids: list[int]) -> list[int]:
        if self._eos is None:
            return ids
        end = len(ids)
        while end and ids[end - 1] != self._eos and self._is_space(ids[end - 1]):
            end -= 1
        return ids[:end] if end and ids[end - 1] == self._eos else [*ids, self._eos]

    def _is_space(self, token: int) -> bool:
        if token not in self._spaces:
            self._spaces[token] = self.tokenizer.decode(token).isspace()
        return self._spaces[token]

    def _fit(self, ids: list[int], shared: int, cut: Cut | None) -> Rendered:
        if not ids:
            raise Unprocessable("the text has no token to read a reward from", code="invalid_token_ids")
        most = self.reading.max_length
        limit = min(cut.length, most) if cut and cut.length else most
        if len(ids) <= limit:
            return Rendered(ids, shared)
        if cut is None:
            message = f"the text has {len(ids)} tokens and this model reads {limit}; shorten it"
            raise Unprocessable(message, code="context_length_exceeded")
        if (cut.side or self.reading.truncation) == "left":
            return Rendered(ids[-limit:], 0, truncated=True)
        end = [] if self._eos is None else [self._eos]
        return Rendered(ids[: limit - len(end)] + end, 0, truncated=True)


def _tokens_before(encoded: Any, border: int) -> int:
    """How many tokens stand before a character, 0 if one spans it or the tokenizer does not tell."""
    if not encoded.is_fast:
        return 0
    last, first = encoded.char_to_token(border - 1), encoded.char_to_token(border)
    if last is not None and encoded.token_to_chars(last).end == border:
        return int(last) + 1
    if first is not None and encoded.token_to_chars(first).start == border:
        return int(first)
    return 0
