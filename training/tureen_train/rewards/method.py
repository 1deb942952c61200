"""What one way to train a reward model brings to the run that all share, and the table of the ways."""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from tureen_core.manifest import Objective, Probe
from tureen_core.template import Renderer
from tureen_train.config import RewardRun
from tureen_train.measures.metrics import Array
from tureen_train.records.run_data import Loaded
from tureen_train.records.schema import Record

METHODS = {
    "attributes": ("tureen_train.rewards.attributes", "Attributes"),
    "gate": ("tureen_train.rewards.gate", "Gate"),
    "odin": ("tureen_train.rewards.odin", "Odin"),
    "pair": ("tureen_train.rewards.pairs", "Pairs"),
    "steps": ("tureen_train.rewards.steps", "Steps"),
    "ranking": ("tureen_train.rewards.ranking", "Ranking"),
}


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

    def probes(self, data: Loaded, count: int) -> list[Probe]:
        """Probes without scores, of held-out records where there are some."""


def method_of(run: RewardRun, renderer: Renderer) -> Method:
    """The method that a recipe's loss names."""
    module, name = METHODS[run.loss.method]
    method: Method = getattr(importlib.import_module(module), name)(run, renderer)
    return method
