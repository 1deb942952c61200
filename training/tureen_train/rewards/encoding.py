"""The encoding of a run's records: what cannot be learnt from is left out and counted in the run's account."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from tureen.records.schema import Record
from tureen_train.config import RewardRun
from tureen_train.records.encoding_report import check_training_data
from tureen_train.records.run_data import RunData
from tureen_train.rewards.method import Encodings
from tureen_train.runs.folder import update_account

E = TypeVar("E", bound=Encodings)
E_co = TypeVar("E_co", bound=Encodings, covariant=True)

log = logging.getLogger("tureen.train")


class RecordEncoder(Protocol[E_co]):
    """The part of a method that turns records into ids."""

    def encode(self, records: Iterable[Record]) -> E_co:
        """Turn records into ids."""


@dataclass(frozen=True)
class EncodedData(Generic[E]):
    """The encoded training records, and those of each evaluation file."""

    train: E
    sets: Mapping[str, E]


def encode_data(run: RewardRun, method: RecordEncoder[E], data: RunData) -> EncodedData[E]:
    """Encode the training records, and each evaluation file.

    Training pairs that are equal after the cut are left out. In evaluation they stay, and count one half.

    Raises:
        RecipeError: there is nothing to learn from, or more than ``data.most_dropped`` of it is left out.
    """
    train = method.encode(data.train)
    train.leave_out_equal()
    check_training_data(train.report, run.data.most_dropped)
    sets = {name: method.encode(records) for name, records in data.eval.items()}
    log.info("%d records to train on, %d answers truncated", len(train), train.truncated)
    if train.report.lost:
        log.warning("left out of training: %s", train.report.reasons)
    reports = {"training": train.report, **{name: each.report for name, each in sets.items()}}
    update_account(Path(run.output), texts={name: each.counts for name, each in reports.items()})
    return EncodedData(train, sets)
