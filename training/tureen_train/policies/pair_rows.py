"""Preference pairs as rows of ids for TRL's DPO. They are the ids that the service reads, tools included.

TRL would render messages itself. It knows nothing of end marks, control marks or thoughts, and a column of objects
fills the fields of one row's tools with nulls in all others. So its rows hold ids, which the service's renderer made.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from trl import DPOTrainer

from tureen.records.schema import Record
from tureen_core.template import Renderer
from tureen_train.policies.encoding import EncodedAnswer, encode_answers
from tureen_train.records.encoding_report import EQUAL, EncodingReport

Rows = list[dict[str, Any]]
TOO_LONG = "with a prompt longer than policy.max_length"
BARE = "without a prompt"


class EncodedTrainer(DPOTrainer):
    """TRL's trainer on rows of ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """Return the rows as they are. TRL's own method would make these columns of messages."""
        return dataset


@dataclass(frozen=True)
class PairRows:
    """The rows of comparable pairs, and what became of the other pairs."""

    rows: Rows
    report: EncodingReport


def encode_pairs(records: Iterable[Record], renderer: Renderer, equal: bool = False) -> PairRows:
    """Encode each comparable pair as one of TRL's rows, of int32 arrays.

    Texts are cut at the right, to the reading's ``max_length``. A pair whose prompt alone is so long is left out.

    Args:
        equal: keep the pairs that are equal after the cut.

    Raises:
        BadRecord: the chat template does not render a record's turns or tools.
    """
    rows: Rows = []
    left_out, truncated = {BARE: 0, TOO_LONG: 0, EQUAL: 0}, 0
    for record in records:
        answers = encode_answers(renderer, record) if record.prompt else []
        for better, worse in record.pairs:
            if not answers:
                left_out[BARE] += 1
                continue
            two = answers[better], answers[worse]
            if min(each.start for each in two) >= renderer.reading.max_length:
                left_out[TOO_LONG] += 1
            elif two[0].ids == two[1].ids and not equal:
                left_out[EQUAL] += 1
            else:
                rows.append(_make_row(*two))
                truncated += sum(each.truncated for each in two)
    return PairRows(rows, EncodingReport("pairs", len(rows), left_out, truncated))


def _make_row(better: EncodedAnswer, worse: EncodedAnswer) -> dict[str, Any]:
    """Split two texts where the first of them leaves the prompt, as TRL does."""
    border = min(better.start, worse.start)
    parts = {
        "prompt_ids": better.ids[:border],
        "chosen_ids": better.ids[border:],
        "rejected_ids": worse.ids[border:],
    }
    return {name: np.array(ids, dtype=np.int32) for name, ids in parts.items()}
