"""A policy that was trained in rounds, as the frame of a run sees it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen_core.manifest import Probe
from tureen_train.policies.method import Metrics


@dataclass(frozen=True)
class TrainedRounds:
    """The :class:`tureen_train.policies.method.TrainedPolicy` after the last round.

    Attributes:
        folder: has the weights after the last round.
    """

    model: Any
    policy: Any
    accelerator: Any
    history: Sequence[Mapping[str, Any]]
    metrics: Metrics
    moved: bool
    folder: Path
    probes: Sequence[Probe] = ()

    def save(self, folder: Path) -> None:
        """Copy the weights after the last round. Every rank must call it."""
        if self.accelerator.is_main_process:
            shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        self.accelerator.wait_for_everyone()
