"""The only place that turns a conversation into token ids; training and serving both call it.

BOS once, EOS as an id (never as text that a tokenizer could split), truncation from the left so that the answer
stays, and the split of a prompt from its candidates so that a runtime can compute the prompt once.

Marks of the end (EOS, padding, and the mark by which the template ends a turn) at either end of a message are removed
with the white space around them: policies leave them there, and the template writes its own. Control marks inside a
message are read as plain text, unless the reading says otherwise: who writes a message cannot write a turn. A text that
is rendered already is a whole dialogue: its control marks are control tokens, and the marks at its end stand once.

A template that prints the date is given :data:`tureen_core.chat_template.TODAY`, since a reward must not depend on the
calendar.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tureen.errors import Unprocessable
from tureen_core.chat_template import NO_INPUTS, ChatTemplate, Opening, TemplateInputs, WrittenText
from tureen_core.control_marks import ControlMarks, escape_text, map_texts
from tureen_core.reading import Cut, Reading, Rendered
from tureen_core.special_tokens import make_special_tokens
from tureen_core.template_frame import TemplateFrame
from tureen_core.turns import Messages, check_messages, check_text

CANARY_QUESTION = "Why, in 1492, did 3 ships — naïve or not — sail?\n\n\tSay it in code: x_1 += 0.5;"
CANARY: Messages = (
    {"role": "user", "content": CANARY_QUESTION},
    {"role": "assistant", "content": "  Für Gewürze & gold…  猫も。\n```py\nprint('ok')\n```"},
)


class Renderer:
    """Renders for one tokenizer and one reading.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template, a pad token, and EOS unlike it.
        reading: the artifact's.
        own_pad: whether a tokenizer whose pad is EOS is refused. It may be allowed where nothing masks by pad ids.

    Raises:
        ValueError: no EOS id where one must be appended, pad equal to EOS, or no frame where one is needed.
    """

    def __init__(self, tokenizer: Any, reading: Reading, own_pad: bool = True) -> None:
        if own_pad and tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
            raise ValueError("the tokenizer needs a pad token of its own: a pad equal to EOS hides the end of a text")
        if reading.eos == "append" and tokenizer.eos_token_id is None:
            raise ValueError("the reading appends EOS and the tokenizer has none")
        self.tokenizer = tokenizer
        self.reading = reading
        self._specials = make_special_tokens(tokenizer, reading)
        self._template = ChatTemplate(tokenizer)
        self._marks = ControlMarks(tokenizer, split=reading.frame == "pair")
        self.frame = TemplateFrame(tokenizer, self._template, self._marks)

    def digest(self) -> str:
        """A hash of the template and of a fixed conversation rendered by it, in 16 hex digits.

        It does not depend on where a text is truncated.
        """
        seen = {
            "template": self.tokenizer.chat_template,
            "bos": self.tokenizer.bos_token_id,
            "eos": self.tokenizer.eos_token_id,
            "canary": self.tokenize_conversation(CANARY),
        }
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:16]

    def render_conversation(
        self, messages: Messages, truncate: bool | Cut = True, inputs: TemplateInputs = NO_INPUTS
    ) -> Rendered:
        """Render a finished conversation to ids. ``shared`` counts the ids before its last answer.

        Raises:
            Unprocessable: a role is unknown or out of order, the template does not render a field, or it is too long
                and ``truncate`` is false.
        """
        written = self._write(messages, "nothing", inputs)
        cut = Cut() if truncate is True else truncate or None
        return self._whole(written.text, self.frame.find_last_answer(written.text), cut, told=written.normalised)

    def render_text(self, text: str, cut: Cut | None = None, specials: bool = True) -> Rendered:
        """Encode a text that is rendered already. ``shared`` counts the ids before its last answer.

        Args:
            cut: how a text that is too long is cut; None refuses it.
            specials: BOS and EOS as the reading says, and the marks at its end, each once; without, the text's own
                tokens and no other.

        Raises:
            Unprocessable: it holds a lone surrogate, is too long, or has no token.
        """
        check_text(text, "text")
        tidy = self.frame.tidy_text(text) if specials else text
        told = () if len(tidy.rstrip()) >= len(text.rstrip()) else ("end_marks",)
        tidy = escape_text(tidy)
        return self._whole(tidy, self.frame.find_last_answer(tidy), cut, specials, told)

    def render_ids(self, ids: Sequence[int], cut: Cut | None = None) -> Rendered:
        """Check ids that the caller made.

        Raises:
            Unprocessable: there are none, too many, or one that the tokenizer does not have.
        """
        known = len(self.tokenizer)
        strange = next((each for each in ids if not 0 <= each < known), None)
        if strange is not None:
            raise Unprocessable(f"the tokenizer has no token {strange}", code="invalid_token_ids")
        return self._fit(list(ids), 0, cut)

    def tokenize_text(self, text: str, specials: bool = True) -> list[int]:
        """Encode a rendered text of any length. :meth:`render_text` also fits it to the limit."""
        check_text(text, "text")
        ids: list[int] = self.tokenizer(self.frame.tidy_text(text) if specials else text, add_special_tokens=False)[
            "input_ids"
        ]
        return self._specials.close_ids(self._specials.open_ids(ids)) if specials else ids

    def tokenize_part(self, text: str) -> tuple[list[int], bool]:
        """Encode a part of a message, such as a step, without BOS and EOS. Also returns whether marks were hidden."""
        hidden: str = self.hide_marks(text)
        return self._marks.encode_text(hidden)[0], hidden != text

    def tokenize_conversation(self, messages: Messages, inputs: TemplateInputs = NO_INPUTS) -> list[int]:
        """Encode a conversation of any length, as :meth:`render_conversation` does if it fits."""
        return self._specials.close_ids(self._read(self._write(messages, "nothing", inputs).text, 0)[0])

    def tokenize_prompt(self, messages: Messages, inputs: TemplateInputs = NO_INPUTS) -> list[int]:
        """Encode a prompt for a policy: the template with its generation prompt, not truncated."""
        return self.render_prompt(messages, inputs=inputs).ids

    def render_prompt(
        self,
        messages: Messages,
        lead: str = "",
        inputs: TemplateInputs = NO_INPUTS,
        begun: str = "",
        opening: Opening = "answer",
    ) -> Rendered:
        """Render as :meth:`tokenize_prompt` does. ``shared`` counts the ids up to the end of ``lead``, or 0.

        ``begun`` begins an answer, with control tokens unless :meth:`hide_marks` hid them; ``opening``: what follows.
        """
        written = self._write(messages, opening, inputs)
        text, lead = written.text + begun, self.hide_marks(lead)
        ids, shared = self._read(text, text.find(lead) + len(lead) if lead in text else 0)
        return Rendered(ids, shared, normalised=tuple(sorted(written.normalised)))

    def tokenize_plain_prompt(self, text: str, specials: bool = True) -> list[int]:
        """Encode a bare text for a policy. Its control marks are control tokens.

        Args:
            specials: put those special tokens before it that the tokenizer itself puts there, as vLLM does. BOS stands
                there once. The text stays open: no EOS follows it.
        """
        check_text(text, "prompt")
        ids: list[int] = self.tokenizer(text, add_special_tokens=specials)["input_ids"]
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if specials and eos is not None and ids[-1:] == [eos]:
            plain = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            ids = ids[:-1] if ids[len(ids) - 1 - len(plain) : -1] == plain else ids
        return ids[1:] if specials and bos is not None and ids[:2] == [bos, bos] else ids

    def opens_answer(self, text: str) -> bool:
        """Whether a text has the template's opening of an answer, which shows that it was rendered by it."""
        return self.frame.find_last_answer(text) > 0

    def strip_end_marks(self, text: str) -> str:
        """Remove end marks at both ends of a message's text."""
        return self.frame.strip_end_marks(text)

    def render_candidates(
        self,
        prompt: Messages,
        answers: Sequence[Messages],
        truncate: bool | Cut = True,
        inputs: TemplateInputs = NO_INPUTS,
    ) -> list[Rendered]:
        """Render one prompt with each of its answers to ids, as :meth:`iterate_candidates` does."""
        return list(self.iterate_candidates(prompt, answers, truncate, inputs))

    def iterate_candidates(
        self,
        prompt: Messages,
        answers: Sequence[Messages],
        truncate: bool | Cut = True,
        inputs: TemplateInputs = NO_INPUTS,
    ) -> Iterator[Rendered]:
        """Render one prompt with each of its answers to ids, one answer at a time.

        ``shared`` counts the tokens before the answer. It is 0 if a token spans the border or the text was truncated;
        then the text is computed alone.

        Raises:
            Unprocessable: as :meth:`render_conversation`, for the first answer at fault.
        """
        opened, cut = self._write(prompt, "answer", inputs).text, Cut() if truncate is True else truncate
        for answer in answers:
            written = self._write([*prompt, *answer], "nothing", inputs)
            border = len(opened) if written.text.startswith(opened) else 0
            yield self._whole(written.text, border, cut or None, told=written.normalised)

    def _write(self, messages: Messages, opening: Opening, inputs: TemplateInputs = NO_INPUTS) -> WrittenText:
        """Render messages by the template, without end marks, and with hidden control marks."""
        check_messages(messages)
        stripped = [{**each, "content": each["content"] and self.strip_end_marks(each["content"])} for each in messages]
        turns, adapted, told = self._template.adapt_messages(stripped, inputs)
        hidden = [{**self.hide_marks(each), "role": each["role"]} for each in turns]
        beside = TemplateInputs(self.hide_marks(adapted.tools), self.hide_marks(adapted.arguments))
        if stripped != [dict(each) for each in messages]:
            told.add("end_marks")
        if hidden != turns or beside != adapted:
            told.add("control_marks")
        return WrittenText(self._template.write_messages(hidden, opening, beside), frozenset(told))

    def hide_marks(self, value: Any) -> Any:
        """Hide control marks in all texts of a value, if the reading takes them as plain text."""
        return map_texts(self._marks.hide_marks if self.reading.control_marks == "text" else escape_text, value)

    def _whole(
        self, text: str, border: int, cut: Cut | None, specials: bool = True, told: Iterable[str] = ()
    ) -> Rendered:
        """Encode a finished text. Also returns the number of ids before character ``border``."""
        ids, before = self._read(text, border, specials)
        ids = self._specials.close_ids(ids) if specials else ids
        fitted = self._fit(ids, before if before < len(ids) else 0, cut)
        return replace(fitted, normalised=tuple(sorted(told)))

    def _read(self, text: str, border: int, specials: bool = True) -> tuple[list[int], int]:
        """Encode an open text. Also returns the number of ids before character ``border``, 0 if that is unclear."""
        ids, before = self._marks.encode_text(text, border)
        opened = self._specials.open_ids(ids) if specials else ids
        return opened, before + len(opened) - len(ids) if before else 0

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
        kept = self._specials.cut_ids(ids, limit, cut.side or self.reading.truncation)
        return Rendered(kept, 0, truncated=True)
