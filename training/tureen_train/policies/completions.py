"""Answers as rows of ids for supervised fine-tuning: the prompt is read, the answer is learnt."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tureen.records.schema import Record
from tureen_core.template import Renderer
from tureen_train.policies.encoding import EncodedAnswer, encode_answer, encode_turn, warn_of_unlike_openings
from tureen_train.policies.preferences import BARE, TOO_LONG
from tureen_train.records.encoding_report import EncodingReport
from tureen_train.records.rendering import locate_refusals

IGNORED = -100  # the label of a token that is not learnt
OVERLONG = "longer than policy.max_length"
UNSCORED = "without a score among several"


@dataclass(frozen=True)
class Completions:
    """Encoded answers with their prompts, and what became of the records' answers."""

    items: Sequence[EncodedAnswer]
    report: EncodingReport

    def make_rows(self) -> list[dict[str, Any]]:
        """Make rows of ``input_ids`` and ``labels``; the prompt's labels are :data:`IGNORED`."""
        return [
            {
                "input_ids": np.array(each.ids, dtype=np.int32),
                "labels": np.array([IGNORED] * each.start + list(each.answer), dtype=np.int32),
            }
            for each in self.items
        ]


def encode_completions(
    records: Iterable[Record],
    renderer: Renderer,
    answers: Literal["best", "all"] = "best",
    too_long: Literal["cut", "drop"] = "cut",
) -> Completions:
    """Encode answers with their prompts, cut at the right to the reading's ``max_length``, or left out if longer.

    An answer of several turns, as one that calls tools, gives a row for each turn of the assistant: the turns of others
    are read and not learnt. A record without a prompt is a whole dialogue, of which the last turn is learnt.

    Args:
        answers: whether each record's best answer is learnt, the first of equally good ones, or all of them. A record's
            only answer needs no score.

    Raises:
        BadRecord: the chat template does not render a record's turns or tools.
    """
    items: list[EncodedAnswer] = []
    left_out = {BARE: 0, TOO_LONG: 0, UNSCORED: 0, OVERLONG: 0}
    for record in records:
        if answers == "best" and len(record.answers) > 1 and all(map(math.isnan, record.scores)):
            left_out[UNSCORED] += 1
            continue
        for number in _choose_answers(record, answers):
            for item in _encode_turns(record, number, renderer):
                if not item.start:
                    left_out[BARE] += 1
                elif item.start >= renderer.reading.max_length:
                    left_out[TOO_LONG] += 1
                elif item.truncated and too_long == "drop":
                    left_out[OVERLONG] += 1
                else:
                    items.append(item)
    warn_of_unlike_openings(items)
    truncated = sum(each.truncated for each in items)
    needs = "an answer" if answers == "all" else "an answer, with a score if there are several"
    return Completions(items, EncodingReport("answers", len(items), left_out, truncated, needs))


def _choose_answers(record: Record, answers: Literal["best", "all"]) -> list[int]:
    """Choose the numbers of the answers that are learnt."""
    numbers = range(len(record.answers))
    if answers == "all":
        return list(numbers)
    return [max(numbers, key=lambda n: (not math.isnan(record.scores[n]), record.scores[n]))]


def _encode_turns(record: Record, number: int, renderer: Renderer) -> Iterator[EncodedAnswer]:
    """Encode each turn of the assistant in an answer; one without a turn before it is empty."""
    whole = (*record.prompt, *record.answers[number])
    first = len(record.prompt) if record.prompt else len(whole) - 1
    for place in range(first, len(whole)):
        if whole[place]["role"] != "assistant":
            continue
        before, turn = whole[:place], whole[place : place + 1]
        with locate_refusals(record.source):
            if not place:
                yield EncodedAnswer((), 0)
            elif place == len(whole) - 1:
                yield encode_turn(renderer, record, number, before, turn)
            else:
                yield encode_answer(renderer, before, turn, record.template_arguments)
