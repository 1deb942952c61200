"""The protocol of a method: what each way of training a reward model must provide. The table is in :mod:`.methods`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from tureen.records.schema import Record
from tureen_core.manifest import Objective, Probe
from tureen_train.measures.metrics import Array
from tureen_train.records.encoding_report import EncodingReport
from tureen_train.records.run_data import RunData
from tureen_train.runs.counted_trainer import Outcome


class Encodings(Protocol):
    """Encoded records. ``truncated`` is the number of texts that were cut."""

    truncated: int

    @property
    def width(self) -> int:
        """The largest number of columns (answers or steps) that an item needs in a table."""

    @property
    def report(self) -> EncodingReport:
        """What can be learnt from, and what is left out and why."""

    def leave_out_equal(self) -> None:
        """Leave out what is equal after the cut although its labels differ. Training does; evaluation does not."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Calibrator(Protocol):
    """The part of a method that gives its objectives a scale."""

    def calibrate(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:
        """Calibrate the objectives on evaluation files; write plots into ``folder``."""

    def objectives(self) -> list[Objective]:
        """The objectives without calibration, for a run that holds nothing out."""


class Method(Calibrator, Protocol):
    """Turns records into batches, batches into a loss, and predictions into metrics.

    Attributes:
        labels: keys of a batch, ``[B, ...]`` float32 each, that evaluation gathers beside the predictions.
    """

    labels: Sequence[str]

    def encode(self, records: Iterable[Record]) -> Encodings:
        """Turn records into ids."""

    def collate(self, items: Sequence[Any], width: int) -> dict[str, Tensor]:
        """Make one batch. Its tables have ``width`` columns, so that the tables of several batches can be joined."""

    def counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Count what each term of the loss is a mean over, as comparable pairs: ``[C]`` float32.

        The counts are known before the forward pass, so that all micro-batches of a step, on all ranks, share one mean.
        """

    def loss(self, model: Any, batch: Mapping[str, Tensor], counts: Tensor) -> Outcome:
        """Run the model and compute the loss. ``counts`` are those of this batch or of the whole step."""

    def compute_metrics(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Compute the metrics of one evaluation file, by name, from all its batches."""

    def probes(self, data: RunData, count: int) -> list[Probe]:
        """Choose at most ``count`` probes, without scores, from held-out records where there are some."""
