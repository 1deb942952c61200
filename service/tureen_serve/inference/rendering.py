"""Render answers to token ids. An answer that cannot be read becomes an error. Pure."""

import re
from dataclasses import replace

from tureen.errors import TureenError
from tureen_core.chat_template import UNSUPPORTED, TemplateInputs
from tureen_core.inputs import render_steps
from tureen_core.pair_texts import render_pair
from tureen_core.reading import Cut, Rendered
from tureen_core.template import Renderer
from tureen_core.turns import Messages, check_finished, check_messages
from tureen_serve.inference.pieces import GoOn
from tureen_serve.inference.text_inputs import AnswerPair, FinishedText, Group, ScoreInput, Steps
from tureen_serve.inference.text_limits import TextLimits, measure_input
from tureen_serve.strict_json import make_long_text_error

__all__ = ["AnswerPair", "FinishedText", "Group", "ScoreInput", "Steps", "relocate_error", "render_answers"]

LIMITS = TextLimits()


def do_proceed() -> None:
    """Go on with the next piece."""


def render_answers(
    renderer: Renderer, group: ScoreInput, truncate: bool, limits: TextLimits = LIMITS, go_on: GoOn = do_proceed
) -> list[Rendered | TureenError]:
    """Render each answer to token ids, or to an error.

    The ``param`` of an error is relative to the group: ``prompt``, ``candidates[1]``, or ``messages[0].role`` if the
    group has no prompt. It is None for a finished text. A text that is too large is not rendered.

    Args:
        go_on: called before each text; an error that it raises ends the rendering.
    """
    go_on()
    sizes = measure_input(group)
    if max(sizes, default=0) > limits.text_bytes:
        return _render_small(renderer, group, truncate, limits, sizes)
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
        found: list[Rendered | TureenError] = []
        for rendered in renderer.iterate_candidates(group.prompt, group.answers, cut, group.beside):
            go_on()
            found.append(rendered)
        return found
    except TureenError:
        return [_candidate(renderer, group, answer, index, cut, go_on) for index, answer in enumerate(group.answers)]


def _render_small(
    renderer: Renderer, given: ScoreInput, truncate: bool, limits: TextLimits, sizes: list[int]
) -> list[Rendered | TureenError]:
    """Render the texts of an input that are small enough; each other one is an error."""
    if not isinstance(given, Group):
        param = "steps" if isinstance(given, Steps) else given.param(0)
        return [make_long_text_error(sizes[0], limits.text_bytes, param or None)] * len(given)
    found: list[Rendered | TureenError] = []
    for index, size in enumerate(sizes):
        if size > limits.text_bytes:
            found.append(make_long_text_error(size, limits.text_bytes, given.param(index)))
        else:
            alone = render_answers(renderer, replace(given, answers=[given.answers[index]]), truncate, limits)
            found += [_renumber(each, index) if isinstance(each, TureenError) else each for each in alone]
    return found


def _renumber(error: TureenError, index: int) -> TureenError:
    """Return the error of an answer that was rendered alone, with its place in the group."""
    param = error.param or ""
    return relocate_error(error, re.sub(r"^candidates\[0\]", f"candidates[{index}]", param))


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
    renderer: Renderer, group: Group, answer: Messages, index: int, truncate: bool | Cut, go_on: GoOn
) -> Rendered | TureenError:
    go_on()
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
