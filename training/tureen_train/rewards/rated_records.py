"""Answers as ids with several ratings each: what :mod:`.attributes` trains on."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tureen.records.schema import UNLABELLED, Record
from tureen_core.template import Renderer
from tureen_train.config import AttributesLoss, RecipeError, RewardRun
from tureen_train.measures.metrics import Array
from tureen_train.records.encoding_report import EQUAL, EncodingReport
from tureen_train.records.run_data import list_ratings
from tureen_train.rewards.collate import EncodedRecord, EncodedRecords


@dataclass(frozen=True)
class RatedRecord(EncodedRecord):
    """Answers with K ratings each; NaN where a rating is missing."""

    ratings: list[list[float]]


class RatedRecords(EncodedRecords):
    """Encoded records with their ratings of the attributes in ``names``."""

    def __init__(self, records: Iterable[Record], renderer: Renderer, names: Sequence[str]) -> None:
        self.names = names
        self._blanked = 0
        super().__init__(records, renderer)

    @property
    def report(self) -> EncodingReport:
        """The answers that can be learnt from, and those that are left out."""
        rated = int((~np.isnan(self.ratings)).any(axis=1).sum())
        return EncodingReport("answers", rated, {EQUAL: self._blanked}, self.truncated, needs="a rated answer")

    def leave_out_equal(self) -> None:
        """Take the ratings from an answer that after the cut equals another of its prompt, but is rated otherwise."""
        for item in self.items:
            assert isinstance(item, RatedRecord)
            for place in find_contradictions(item):
                item.ratings[place] = [UNLABELLED] * len(self.names)
                self._blanked += 1

    def _encode(self, record: Record, renderer: Renderer) -> RatedRecord:
        encoded = super()._encode(record, renderer)
        unknown = (UNLABELLED,) * len(record.answers)
        columns = [record.attributes.get(name, unknown) for name in self.names]
        return RatedRecord(
            encoded.ids, encoded.starts, encoded.scores, [list(row) for row in zip(*columns, strict=True)]
        )

    @property
    def ratings(self) -> Array:
        """``[M, K]``: the ratings of all answers, NaN where missing."""
        rows = [row for item in self.items if isinstance(item, RatedRecord) for row in item.ratings]
        return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(self.names))


def name_attributes(run: RewardRun) -> RewardRun:
    """Return a recipe whose attributes are named; by default they are all ratings of its training files.

    Raises:
        RecipeError: the files have no ratings.
        DataError: a file cannot be read.
    """
    assert isinstance(run.loss, AttributesLoss)
    if run.loss.attributes:
        return run
    names = list_ratings(run.data)
    if not names:
        raise RecipeError(
            "loss.attributes: the training files hold no ratings: give each rating a column of numbers beside `prompt` "
            "and `response`, or map other names with --map"
        )
    loss = AttributesLoss.model_validate({**run.loss.model_dump(), "attributes": names})
    return run.model_copy(update={"loss": loss})


def find_contradictions(item: RatedRecord) -> list[int]:
    """List the answers that have the ids of another of the prompt, and another rating of an attribute."""
    told = [[None if math.isnan(value) else value for value in row] for row in item.ratings]
    texts = item.texts
    return [
        place
        for place, text in enumerate(texts)
        if any(other == text and told[at] != told[place] for at, other in enumerate(texts))
    ]
