"""What one way to train a reward model brings to the run that all share. :mod:`.methods` is the table of the ways."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from tureen_core.manifest import Objective, Probe
from tureen_train.measures.metrics import Array
from tureen_train.records.run_data import RunData
from tureen_train.records.schema import Record


@dataclass(frozen=True)
class Outcome:
    """What one batch gave.

    Attributes:
        loss: a scalar: each of the method's terms, summed over what it counts and divided by the counts given.
        predictions: ``[B, ...]`` float32, one row an item, NaN where there is nothing; evaluation gathers them.
        terms: detached figures of the batch for the log, by name.
    """

    loss: Tensor
    predictions: Tensor
    terms: Mapping[str, Tensor]


class Encodings(Protocol):
    """Encoded records. ``width`` is the most answers (or steps) of any; ``truncated`` counts the texts cut."""

    truncated: int

    @property
    def width(self) -> int:
        """The most columns that an item needs in a table."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Method(Protocol):
    """How records become batches, batches a loss, and predictions figures.

    Attributes:
        labels: the keys of a batch that evaluation gathers beside the predictions, ``[B, ...]`` float32.
    """

    labels: Sequence[str]

    def encode(self, records: Iterable[Record]) -> Encodings:
        """Records as ids."""

    def collate(self, items: Sequence[Any], width: int) -> dict[str, Tensor]:
        """One batch; tables in it are ``width`` wide, so that those of several batches can be joined."""

    def counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """``[C]`` float32: what each term of the loss is a mean over, as comparable pairs; known before the forward
        pass, so that a step's micro-batches on all ranks share one mean.
        """

    def loss(self, model: Any, batch: Mapping[str, Tensor], counts: Tensor) -> Outcome:
        """Run the model and compute the loss; ``counts`` are this batch's or the whole step's."""

    def figures(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Figures of one evaluation file by name, from all its batches."""

    def settle(self, predictions: Array, labels: Sequence[Array], folder: Path) -> list[Objective]:
        """The objectives with their scale, calibrated on one evaluation file; plots go into ``folder``."""

    def objectives(self) -> list[Objective]:
        """The objectives without a scale, where nothing was held out."""

    def probes(self, data: RunData, count: int) -> list[Probe]:
        """Probes without scores, of held-out records where there are some."""
