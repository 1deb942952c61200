"""From a prompt's answers to token ids, with an error in place of each answer that cannot be read. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from tureen.errors import TureenError
from tureen_core.template import Messages, Rendered, Renderer, check_finished, check_messages


@dataclass(frozen=True)
class Group:
    """One prompt's answers to score. A finished conversation is a group without prompt and one answer."""

    answers: Sequence[Messages]
    prompt: Messages = ()


def render(renderer: Renderer, group: Group, truncate: bool) -> list[Rendered | TureenError]:
    """Each answer's ids, or what is wrong with it.

    An error's ``param`` is relative to the group: ``prompt``, ``candidates[1]``, or ``messages[0].role`` where the
    group has no prompt.
    """
    if not group.prompt:
        return [_conversation(renderer, answer, truncate) for answer in group.answers]
    try:
        check_messages(group.prompt)
    except TureenError as error:
        return [at(error, "prompt")] * len(group.answers)
    try:
        for answer in group.answers:
            check_finished([*group.prompt, *answer])
        return list(renderer.candidates(group.prompt, group.answers, truncate))
    except TureenError:
        return [
            _candidate(renderer, group.prompt, answer, index, truncate) for index, answer in enumerate(group.answers)
        ]


def _conversation(renderer: Renderer, messages: Messages, truncate: bool) -> Rendered | TureenError:
    try:
        check_finished(messages)
        return renderer.conversation(messages, truncate)
    except TureenError as error:
        return at(error, error.param or "messages")


def _candidate(
    renderer: Renderer, prompt: Messages, answer: Messages, index: int, truncate: bool
) -> Rendered | TureenError:
    try:
        check_finished([*prompt, *answer])
        return renderer.candidates(prompt, [answer], truncate)[0]
    except TureenError as error:
        return at(error, f"candidates[{index}]")


def at(error: TureenError, param: str) -> TureenError:
    """The same error, laid to another field."""
    return type(error)(error.message, param=param, code=error.code)
