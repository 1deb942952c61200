"""What each way of training a policy takes and gives. The table of the methods is in :mod:`.methods`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tureen_core.manifest import Probe
from tureen_core.template import Renderer
from tureen_train.config import ExpertRun
from tureen_train.records.run_data import RunData

Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Task:
    """A policy run, before its training.

    Attributes:
        run: the recipe.
        base: the base's folder.
        data: the records; methods that sample use their prompts.
        renderer: turns messages into the ids that are trained on and served.
        resume: whether to go on from what an earlier, broken run left in :attr:`folder`.
    """

    run: ExpertRun
    base: Path
    data: RunData
    renderer: Renderer
    resume: bool

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.run.output)


class TrainedPolicy(Protocol):
    """A policy after its training, on each rank.

    Attributes:
        model: the model, wrapped as it was trained.
        policy: the causal model in it, bare or wrapped by PEFT.
        accelerator: accelerate's, which knows the ranks.
        history: the entries of the log.
        metrics: figures of each held-out file.
        moved: whether a gradient other than 0 was seen.
        probes: conversations of the method's own; empty where those of the data will do.
    """

    @property
    def model(self) -> Any:
        """As above."""

    @property
    def policy(self) -> Any:
        """As above."""

    @property
    def accelerator(self) -> Any:
        """As above."""

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """As above."""

    @property
    def metrics(self) -> Metrics:
        """As above."""

    @property
    def moved(self) -> bool:
        """As above."""

    @property
    def probes(self) -> Sequence[Probe]:
        """As above."""

    def save(self, folder: Path) -> None:
        """Write the adapter, or the whole weights, as transformers and PEFT do. Every rank must call it."""


Method = Callable[[Task], TrainedPolicy]
