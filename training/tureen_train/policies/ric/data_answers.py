"""The answers of a run's records, as prompts with answers that can be rewarded."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tureen.errors import Unprocessable
from tureen.records.schema import Conversation, Record
from tureen_core.template import Renderer
from tureen_train.policies.encoding import encode_answer
from tureen_train.policies.preferences import BARE
from tureen_train.policies.rollouts.contract import Prompt, Sample
from tureen_train.policies.rollouts.prompts import UNREADABLE, PlaceNames
from tureen_train.policies.rollouts.rounds import Write, Written
from tureen_train.records.encoding_report import EncodingReport

TOO_LONG = "longer than policy.max_length"
TOO_SHORT = "shorter than policy.shortest"
NO_TEXT = "of several turns, or with calls of tools"
SILENT = "of prompts without a turn of the user"


@dataclass(frozen=True)
class DataAnswers:
    """The prompts of records, each with its answers, and what became of the others."""

    prompts: Sequence[Prompt]
    samples: Sequence[Sequence[Sample]]
    report: EncodingReport

    def make_writer(self) -> Write:
        """Make what "writes" the answers: it gives those of the data."""
        known = {prompt.id: own for prompt, own in zip(self.prompts, self.samples, strict=True)}
        return lambda prompts: [[Written(each) for each in known[prompt.id]] for prompt in prompts]


def collect_data_answers(records: Sequence[Record], renderer: Renderer, shortest: int) -> DataAnswers:
    """Collect all answers that fit. The labels of a pair do not count.

    Args:
        shortest: the least number of tokens of an answer with its prompt. The most is the reading's ``max_length``.
    """
    prompts, samples = [], []
    names = PlaceNames()
    left_out: Counter[str] = Counter()
    for record in records:
        place = names.name_place(record)
        kept: list[Sample] = []
        for answer in record.answers:
            fault = _find_fault(record, answer, renderer, shortest)
            if fault is None:
                kept.append(Sample(place, len(kept), answer[0]["content"]))
            else:
                left_out[fault] += 1
        if kept:
            prompts.append(Prompt(place, record.prompt, template_arguments=record.template_arguments))
            samples.append(kept)
    return DataAnswers(
        prompts, samples, EncodingReport("answers", sum(map(len, samples)), left_out, needs="a prompt and an answer")
    )


def _find_fault(record: Record, answer: Conversation, renderer: Renderer, shortest: int) -> str | None:
    if not record.prompt:
        return BARE
    if all(turn["role"] != "user" for turn in record.prompt):
        return SILENT
    if len(answer) != 1 or answer[0].get("tool_calls") or not answer[0]["content"]:
        return NO_TEXT
    try:
        encoded = encode_answer(renderer, record.prompt, answer, record.template_arguments)
    except Unprocessable:
        return UNREADABLE
    if encoded.truncated:
        return TOO_LONG
    return TOO_SHORT if len(encoded.ids) < shortest else None
