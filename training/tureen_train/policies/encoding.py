"""From messages to the ids of a prompt and of its answers, by the server's own template.

A prompt's ids are those that the policy is served with: they end with the template's opening of an answer. An answer's
ids end with the mark by which the template ends a turn. A text that is too long loses the end of its answer, and with
it the mark, so that no policy learns to stop where a text was cut.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from tureen.records.schema import Record
from tureen_core.chat_template import make_template_inputs
from tureen_core.template import Renderer
from tureen_core.turns import Messages
from tureen_train.records.rendering import locate_refusals

log = logging.getLogger("tureen.train")


IDS, UNFINISHED = "ids", "unfinished"  # of a record that a policy answered, in its ``meta``


@dataclass(frozen=True)
class EncodedAnswer:
    """An answer with its prompt.

    Attributes:
        ids: of the prompt, then of the answer.
        start: the number of the prompt's ids.
        truncated: whether the end was cut off.
        opened: whether the prompt's ids are those that a policy is served with. A template that writes a finished
            answer otherwise than one that is asked for makes them differ; ``start`` then counts the ids that agree.
    """

    ids: tuple[int, ...]
    start: int
    truncated: bool = False
    opened: bool = True

    @property
    def answer(self) -> tuple[int, ...]:
        """The answer's ids."""
        return self.ids[self.start :]


def encode_prompt(renderer: Renderer, messages: Messages, template_arguments: Mapping[str, Any]) -> list[int]:
    """Encode a prompt as it is served: with the template's opening of an answer, and never cut.

    Args:
        template_arguments: ``tools`` and ``chat_template_kwargs``, see :attr:`tureen.records.schema.Record`.

    Raises:
        Unprocessable: the template does not render a turn or a tool.
    """
    return renderer.tokenize_prompt(messages, make_template_inputs(template_arguments))


def encode_answer(
    renderer: Renderer, prompt: Messages, answer: Messages, template_arguments: Mapping[str, Any]
) -> EncodedAnswer:
    """Encode a prompt with an answer, and cut its end where it is longer than the renderer's ``max_length``.

    The answer is empty where the prompt alone is as long as that.

    Raises:
        Unprocessable: the template does not render a turn or a tool.
    """
    opening = encode_prompt(renderer, prompt, template_arguments)
    whole = renderer.tokenize_conversation([*prompt, *answer], make_template_inputs(template_arguments))
    most = renderer.reading.max_length
    start = len(commonprefix([opening, whole]))
    return EncodedAnswer(tuple(whole[:most]), min(start, most), len(whole) > most, start == len(opening))


def encode_answers(renderer: Renderer, record: Record) -> list[EncodedAnswer]:
    """Encode each answer of a record that has a prompt, as :func:`encode_turn` does.

    Raises:
        BadRecord: the template does not render the record's turns or tools.
    """
    with locate_refusals(record.source):
        return [
            encode_turn(renderer, record, number, record.prompt, answer) for number, answer in enumerate(record.answers)
        ]


def encode_turn(renderer: Renderer, record: Record, number: int, before: Messages, answer: Messages) -> EncodedAnswer:
    """Encode the end of a record's answer, after the turns before it.

    What a policy wrote may be known better than by its text. ``meta["ids"]`` has for each answer the ids that were
    written, or None. ``meta["unfinished"]`` numbers the answers that the policy did not end; they get no end mark,
    since nobody wrote one.

    Args:
        number: of the answer in the record.

    Raises:
        Unprocessable: the template does not render a turn or a tool.
    """
    ids = record.meta[IDS][number] if IDS in record.meta else None
    if ids is not None:
        opening, most = encode_prompt(renderer, before, record.template_arguments), renderer.reading.max_length
        whole = (*opening, *ids)
        return EncodedAnswer(whole[:most], min(len(opening), most), len(whole) > most)
    encode = encode_beginning if number in record.meta.get(UNFINISHED, ()) else encode_answer
    return encode(renderer, before, answer, record.template_arguments)


def encode_beginning(
    renderer: Renderer, prompt: Messages, answer: Messages, template_arguments: Mapping[str, Any]
) -> EncodedAnswer:
    """Encode a prompt with the beginning of an answer, as :func:`encode_answer` does, but without an end mark.

    Args:
        answer: one message with a text.

    Raises:
        Unprocessable: the template does not render a turn or a tool.
    """
    opening = encode_prompt(renderer, prompt, template_arguments)
    (turn,) = answer
    begun = renderer.hide_marks(renderer.strip_end_marks(turn["content"] or ""))
    inputs = make_template_inputs(template_arguments)
    whole = renderer.render_prompt(prompt, inputs=inputs, begun=begun).ids
    most = renderer.reading.max_length
    start = len(commonprefix([opening, whole]))
    return EncodedAnswer(tuple(whole[:most]), min(start, most), len(whole) > most, start == len(opening))


def warn_of_unlike_openings(answers: Sequence[EncodedAnswer]) -> None:
    """Log how many answers do not follow the prompt that a policy is served with."""
    unlike = sum(not each.opened for each in answers)
    if unlike:
        log.warning(
            "%d of %d answers are written by the chat template after another opening than the one that is served: what "
            "is trained is not quite what is served",
            unlike,
            len(answers),
        )
