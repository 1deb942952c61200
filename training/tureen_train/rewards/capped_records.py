"""Encoded records with the cap δ on the reward gap of every two answers (PCRM), computed once before training."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tureen.records.schema import Record
from tureen_core.template import Renderer
from tureen_train.config.ranking import Constraint, CosineCap, LengthCap
from tureen_train.measures.constraints import (
    compute_angular_similarity,
    compute_caps,
    compute_length_ratio,
)
from tureen_train.measures.metrics import Array
from tureen_train.networks.sentence_encoder import add_similarity, open_encoder, read_cosines
from tureen_train.rewards.collate import EncodedRecord, EncodedRecords


@dataclass(frozen=True)
class CappedRecord(EncodedRecord):
    """Answers with ``caps [N, N]``, δ of every two."""

    caps: Array


class CappedRecords(EncodedRecords):
    """Encoded records; each item is a :class:`CappedRecord`."""

    def __init__(self, records: Iterable[Record], renderer: Renderer, settings: Constraint) -> None:
        self._settings = settings
        super().__init__(records, renderer)

    def _encode(self, record: Record, renderer: Renderer) -> CappedRecord:
        plain = super()._encode(record, renderer)
        return CappedRecord(**vars(plain), caps=compute_caps(self._settings, self._similarity(record, plain.ids)))

    def _similarity(self, record: Record, ids: Sequence[Sequence[int]]) -> Array:
        if isinstance(self._settings, CosineCap):
            return compute_angular_similarity(read_cosines(record))
        if isinstance(self._settings, LengthCap):
            return compare_lengths(ids)
        return np.ones((len(ids), len(ids)))


def compare_lengths(ids: Sequence[Sequence[int]]) -> Array:
    """Compute the length ratio of every two texts, ``[N, N]``."""
    return np.array([[compute_length_ratio(first, second) for second in ids] for first in ids])


def encode_capped(records: Iterable[Record], renderer: Renderer, settings: Constraint, cache: Path) -> CappedRecords:
    """Encode records with the caps of a constraint. Cosines that a record lacks are computed and kept in ``cache``.

    Raises:
        BaseError: the sentence encoder is not installed.
        RecipeError: a record has cosines of another number of answers.
    """
    if isinstance(settings, CosineCap):
        records = add_similarity(records, open_encoder(settings.encoder, settings.pooling), cache)
    return CappedRecords(records, renderer, settings)


def pad_caps(items: Sequence[EncodedRecord], width: int) -> Tensor:
    """Collect the caps of a batch: ``[B, width, width]`` float32, NaN where there is no pair."""
    table = torch.full((len(items), width, width), float("nan"))
    for place, item in enumerate(items):
        assert isinstance(item, CappedRecord)
        count = len(item.ids)
        table[place, :count, :count] = torch.from_numpy(item.caps)
    return table
