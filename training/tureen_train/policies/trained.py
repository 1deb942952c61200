"""A policy that one of the library's trainers has trained, as the frame of a run sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen_core.manifest import Probe
from tureen_train.policies.method import Metrics


@dataclass(frozen=True)
class TrainerPolicy:
    """The :class:`tureen_train.policies.method.TrainedPolicy` of a run by ``transformers.Trainer``.

    Attributes:
        trainer: after its training.
        metrics: figures of each held-out file.
        moved: whether a gradient other than 0 was seen.
    """

    trainer: Any
    metrics: Metrics
    moved: bool
    probes: Sequence[Probe] = ()

    @property
    def model(self) -> Any:
        """The model, wrapped as it was trained."""
        return self.trainer.model_wrapped

    @property
    def policy(self) -> Any:
        """The causal model, bare or under PEFT."""
        return self.trainer.accelerator.unwrap_model(self.trainer.model_wrapped)

    @property
    def accelerator(self) -> Any:
        """The trainer's."""
        return self.trainer.accelerator

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The entries of the log."""
        entries: list[dict[str, Any]] = self.trainer.state.log_history
        return entries

    def save(self, folder: Path) -> None:
        """Write the adapter, or the whole weights. Every rank must call it."""
        self.trainer.save_model(str(folder))
