"""Render answers to token ids. An answer that cannot be read becomes an error. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tureen.errors import TureenError
from tureen_core.chat_template import NO_INPUTS, UNSUPPORTED, TemplateInputs
from tureen_core.inputs import render_steps
from tureen_core.pair_texts import render_pair
from tureen_core.reading import Cut, Rendered
from tureen_core.template import Renderer
from tureen_core.turns import Messages, check_finished, check_messages


@dataclass(frozen=True)
class Group:
    """The answers of one prompt. A finished conversation is a group with one answer and no prompt.

    Attributes:
        cut: how to cut an answer that is too long; None uses ``truncate`` of the call.
        beside: what the template is given beside the messages.
    """

    answers: Sequence[Messages]
    prompt: Messages = ()
    cut: Cut | None = None
    beside: TemplateInputs = NO_INPUTS

    def __len__(self) -> int:
        return len(self.answers)

    def param(self, index: int) -> str:
        """Return the field of an answer, relative to the group."""
        return f"candidates[{index}]" if self.prompt else "messages"


@dataclass(frozen=True)
class FinishedText:
    """A text that the caller has rendered, or its token ids. No template is applied to it.

    Attributes:
        specials: give a text the BOS and EOS tokens that the reading names, each once. Without it, and for ids, the
            tokens are read as they are.
        cut: how to cut a text that is too long; None uses ``truncate`` of the call.
    """

    text: str | Sequence[int]
    specials: bool = True
    cut: Cut | None = None

    def __len__(self) -> int:
        return 1

    def param(self, index: int) -> str:  # noqa: ARG002
        """Return ``""``: a text has no fields."""
        return ""


@dataclass(frozen=True)
class Steps:
    """The steps of one answer, after its prompt. Each step is scored."""

    prompt: Messages
    steps: Sequence[str]
    beside: TemplateInputs = NO_INPUTS

    def __len__(self) -> int:
        return len(self.steps)

    def param(self, index: int) -> str:
        """Return the field of a step, relative to the item."""
        return f"steps[{index}]"


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to compare, in this order. The score is the log-odds that the first is better.

    Attributes:
        places: indices of the two answers among the item's candidates.
    """

    prompt: Messages
    first: Messages
    second: Messages
    places: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        return 1

    def param(self, index: int) -> str:  # noqa: ARG002
        """Return the field of the two answers, relative to the item."""
        return "candidates"


ScoreInput = Group | FinishedText | Steps | AnswerPair


def render_answers(renderer: Renderer, group: ScoreInput, truncate: bool) -> list[Rendered | TureenError]:
    """Render each answer to token ids, or to an error.

    The ``param`` of an error is relative to the group: ``prompt``, ``candidates[1]``, or ``messages[0].role`` if the
    group has no prompt. It is None for a finished text.
    """
    if isinstance(group, FinishedText):
        return [_finished(renderer, group, truncate)]
    if isinstance(group, Steps | AnswerPair):
        return _inputs(renderer, group, truncate)
    cut = group.cut or truncate
    if not group.prompt:
        return [_conversation(renderer, answer, cut, group.beside) for answer in group.answers]
    try:
        check_messages(group.prompt)
    except TureenError as error:
        return [relocate_error(error, "prompt")] * len(group.answers)
    try:
        for answer in group.answers:
            check_finished([*group.prompt, *answer])
        return list(renderer.render_candidates(group.prompt, group.answers, cut, group.beside))
    except TureenError:
        return [_candidate(renderer, group, answer, index, cut) for index, answer in enumerate(group.answers)]


def _inputs(renderer: Renderer, group: Steps | AnswerPair, truncate: bool) -> list[Rendered | TureenError]:
    """Render one text for each step, or one text for two answers."""
    field = "prompt"
    try:
        if group.prompt:
            check_messages(group.prompt)
        if isinstance(group, Steps):
            field = ""
            return list(render_steps(renderer, group.prompt, group.steps, truncate, group.beside).prefixes)
        for place, answer in zip(group.places, (group.first, group.second), strict=True):
            field = f"candidates[{place}]"
            check_finished([*group.prompt, *answer])
        field = "candidates"
        return [render_pair(renderer, group.prompt, group.first, group.second, truncate)]
    except TureenError as error:
        if isinstance(group, AnswerPair) and error.code == UNSUPPORTED:
            field = _find_pair_field(error.param or field, group)
        return [relocate_error(error, field or error.param or "steps")] * len(group)


def _find_pair_field(param: str, pair: AnswerPair) -> str:
    """The field of the item that :func:`tureen_core.pair_texts.render_pair` names."""
    for name, place in zip(("first", "second"), pair.places, strict=True):
        if param.startswith(name):
            return f"candidates[{place}]{param.removeprefix(name)}"
    return param


def _finished(renderer: Renderer, given: FinishedText, truncate: bool) -> Rendered | TureenError:
    cut = given.cut or (Cut() if truncate else None)
    try:
        if isinstance(given.text, str):
            return renderer.render_text(given.text, cut, given.specials)
        return renderer.render_ids(given.text, cut)
    except TureenError as error:
        return relocate_error(error, "")


def _conversation(
    renderer: Renderer, messages: Messages, truncate: bool | Cut, beside: TemplateInputs
) -> Rendered | TureenError:
    try:
        check_finished(messages)
        return renderer.render_conversation(messages, truncate, beside)
    except TureenError as error:
        return relocate_error(error, error.param or "messages")


def _candidate(
    renderer: Renderer, group: Group, answer: Messages, index: int, truncate: bool | Cut
) -> Rendered | TureenError:
    try:
        check_finished([*group.prompt, *answer])
        return renderer.render_candidates(group.prompt, [answer], truncate, group.beside)[0]
    except TureenError as error:
        return relocate_error(error, _find_field(error, len(group.prompt), index))


def _find_field(error: TureenError, asked: int, index: int) -> str:
    """The field at fault, where ``asked`` messages are the prompt's and the others those of a candidate."""
    if error.code != UNSUPPORTED or error.param is None:
        return f"candidates[{index}]"
    found = re.fullmatch(r"messages\[(\d+)\](.*)", error.param)
    if found is None:
        return error.param
    place = int(found[1])
    return f"prompt[{place}]{found[2]}" if place < asked else f"candidates[{index}][{place - asked}]{found[2]}"


def relocate_error(error: TureenError, param: str) -> TureenError:
    """Return the same error with another field as its ``param``; ``""`` gives None."""
    return type(error)(error.message, param=param or None, code=error.code, retry_after=error.retry_after)
