"""From records to ids to tensors, by the server's own template: training and serving read the same ids."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tureen.records.schema import Record
from tureen_core.chat_template import make_template_inputs
from tureen_core.reading import Rendered
from tureen_core.template import Renderer
from tureen_train.records.encoding_report import EQUAL, EncodingReport
from tureen_train.records.rendering import locate_refusals


@dataclass(frozen=True)
class EncodedRecord:
    """One prompt's answers as ids, with their scores. ``starts[i]`` is where answer i begins; 0 if not known."""

    ids: list[list[int]]
    starts: list[int]
    scores: list[float]

    @property
    def texts(self) -> list[int]:
        """For each answer the number of the first one with the same ids, its own where there is none before it."""
        return [self.ids.index(each) for each in self.ids]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The pairs to compare, (better, worse): their scores differ, and their ids do."""
        scored = list(enumerate(self.scores))
        ranked = [(i, j) for i, better in scored for j, worse in scored if better > worse]
        return [(i, j) for i, j in ranked if self.ids[i] != self.ids[j]]

    @property
    def equal_pairs(self) -> int:
        """The number of pairs whose scores differ and whose ids do not: the cut took what differs."""
        return sum(better > worse for better in self.scores for worse in self.scores) - len(self.pairs)

    @property
    def longest(self) -> int:
        """The number of tokens of the longest answer with its prompt."""
        return max(len(each) for each in self.ids)


class EncodedRecords(Dataset[EncodedRecord]):
    """Encoded records in memory. ``truncated`` is the number of answers that were cut to ``max_length``."""

    def __init__(self, records: Iterable[Record], renderer: Renderer) -> None:
        self.truncated = 0
        self.items = [self._encode(record, renderer) for record in records]
        self._equal = 0

    @property
    def report(self) -> EncodingReport:
        """The pairs that can be learnt from, and those that are equal after the cut."""
        equal = self._equal + sum(item.equal_pairs for item in self.items)
        return EncodingReport("pairs", sum(len(item.pairs) for item in self.items), {EQUAL: equal}, self.truncated)

    def leave_out_equal(self) -> None:
        """Leave out the records all of whose pairs are equal after the cut. Losses leave out single such pairs."""
        lost = [item for item in self.items if item.equal_pairs and not item.pairs]
        self._equal += sum(item.equal_pairs for item in lost)
        self.items = [item for item in self.items if item.pairs or not item.equal_pairs]

    def _encode(self, record: Record, renderer: Renderer) -> EncodedRecord:
        rendered = render_answers(record, renderer)
        self.truncated += sum(each.truncated for each in rendered)
        return EncodedRecord([each.ids for each in rendered], [each.shared for each in rendered], list(record.scores))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> EncodedRecord:
        return self.items[index]

    @property
    def width(self) -> int:
        """The largest number of answers of a prompt."""
        return max((len(item.ids) for item in self.items), default=0)


def render_answers(record: Record, renderer: Renderer) -> list[Rendered]:
    """Render each answer after its prompt, cut on the left where too long.

    The answers of a record without a prompt are whole conversations.

    Raises:
        BadRecord: the chat template does not render the record's turns or tools.
    """
    inputs = make_template_inputs(record.template_arguments)
    with locate_refusals(record.source):
        if record.prompt:
            return renderer.render_candidates(record.prompt, record.answers, inputs=inputs)
        return [renderer.render_conversation(answer, inputs=inputs) for answer in record.answers]


def pad_texts(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """Make ``input_ids`` and ``attention_mask`` ``[M, T]``, padded on the right.

    Only the mask tells padding from text: the pad id may also occur in a text.
    """
    longest = max(len(ids) for ids in rows)
    return {
        "input_ids": torch.tensor([[*ids, *[pad] * (longest - len(ids))] for ids in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in rows]),
    }


def pad_table(values: Sequence[Sequence[float]], width: int) -> Tensor:
    """Make ``[B, width]`` float32 of rows of unequal length, padded with NaN."""
    return torch.tensor([[*row, *[math.nan] * (width - len(row))] for row in values], dtype=torch.float32)


def collate_answers(items: Sequence[EncodedRecord], width: int, pad: int) -> dict[str, Tensor]:
    """Make a batch of answers: a row for each, and ``scores [B, width]``.

    ``group [M]`` has their prompts' numbers, and ``texts [M]`` equal numbers for equal ids of one prompt.
    """
    batch = pad_texts([ids for item in items for ids in item.ids], pad)
    batch["group"] = torch.tensor([number for number, item in enumerate(items) for _ in item.ids])
    batch["texts"] = torch.tensor([text for item in items for text in item.texts])
    batch["scores"] = pad_table([item.scores for item in items], width)
    return batch
