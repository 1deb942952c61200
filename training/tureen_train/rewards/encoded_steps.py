"""Answers step by step as ids: what :mod:`.steps` trains on."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch.utils.data import Dataset

from tureen.errors import Unprocessable
from tureen.records.schema import BadRecord, Record, read_steps
from tureen_core.chat_template import UNSUPPORTED, make_template_inputs
from tureen_core.inputs import render_steps
from tureen_core.template import Renderer
from tureen_train.config import StepsLoss
from tureen_train.records.encoding_report import EncodingReport


@dataclass(frozen=True)
class EncodedSteps:
    """One answer.

    Attributes:
        ids: the answer's, with its prompt.
        ends: where its steps end.
        labels: of its steps, 0 to 1, NaN without a label.
        prompt: the number of its prompt.
        right: 1 if the whole answer is right, 0 if it is wrong, NaN if that is not known.
    """

    ids: list[int]
    ends: list[int]
    labels: list[float]
    prompt: int
    right: float


class EncodedAnswers(Dataset[EncodedSteps]):
    """Encoded answers in memory: those with a label.

    ``truncated`` is the number of answers whose prompt was cut. ``left_out`` is the number of answers whose steps alone
    are too long, or that have a blank step; ``example`` is the first reason.
    """

    def __init__(self, records: Iterable[Record], renderer: Renderer, loss: StepsLoss) -> None:
        self.truncated = self.left_out = 0
        self.example = ""
        self._prompts: dict[str, int] = {}
        self.items = [
            item
            for record in records
            for index in range(len(record.answers))
            for item in self._encode(record, index, renderer, loss)
        ]

    def _encode(self, record: Record, index: int, renderer: Renderer, loss: StepsLoss) -> list[EncodedSteps]:
        labels = find_step_labels(record, index, loss)
        if all(map(math.isnan, labels)):
            return []
        answer = record.answers[index]
        try:
            prompt, inputs = [*record.prompt, *answer[:-1]], make_template_inputs(record.template_arguments)
            marks = [loss.tokens[label < 0.5] for label in labels]  # as served, + where there is no label
            read = render_steps(renderer, prompt, read_steps(answer), inputs=inputs, marks=marks)
        except Unprocessable as error:
            if error.code == UNSUPPORTED:
                raise BadRecord("cannot be rendered", error.message, record.source, error.param or "") from error
            self.left_out += 1
            self.example = self.example or f"{record.source}: {error}"
            return []
        self.truncated += read.truncated
        number = self._prompts.setdefault(record.prompt_key, len(self._prompts))
        return [EncodedSteps(read.ids, read.ends, labels, number, record.scores[index])]

    @property
    def report(self) -> EncodingReport:
        """The answers that can be learnt from, and those whose steps are too long or blank."""
        left_out = {"with steps that are too long or blank": self.left_out}
        return EncodingReport("answers", len(self.items), left_out, self.truncated, needs="a labelled step")

    def leave_out_equal(self) -> None:
        """Do nothing: steps are never cut, so what differs is never taken from them."""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> EncodedSteps:
        return self.items[index]

    @property
    def width(self) -> int:
        """The largest number of steps of an answer."""
        return max((len(item.ends) for item in self.items), default=0)


def find_step_labels(record: Record, index: int, loss: StepsLoss) -> list[float]:
    """Find the labels of an answer's steps. With ``targets: outcome`` the last has the answer's score, the rest NaN.

    Raises:
        BadRecord: an outcome's score is not 0 to 1.
    """
    count = len(read_steps(record.answers[index]))
    if loss.targets == "process":
        return list(record.steps[index]) if record.steps else [math.nan] * count
    score = record.scores[index]
    if score < 0 or score > 1:
        raise BadRecord("bad score", f"an outcome's score must be 0 (wrong) to 1 (right), is {score:g}", record.source)
    return [*[math.nan] * (count - 1), score]
