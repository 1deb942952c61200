"""Checkpoints of a PPO run: what is trained, its optimiser, and the state of the run."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator, DistributedType
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.trainer_utils import get_last_checkpoint

from tureen_train.policies.ppo.learner import PpoLearner

STATE = "run.json"
TRAINED = "trained.safetensors"


class Checkpoints:
    """The checkpoints of one run, in ``checkpoints/checkpoint-<step>``. Every rank must call the same methods.

    Frozen weights are not saved.

    Args:
        folder: the run's.
        keep: how many are kept.
    """

    def __init__(self, folder: Path, learner: PpoLearner, keep: int) -> None:
        self.folder, self.keep = folder / "checkpoints", keep
        self.accelerator: Accelerator = learner.accelerator
        self.model = learner.model
        self.deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        if not self.deepspeed:  # accelerate would save the frozen weights too
            self.accelerator.register_save_state_pre_hook(self._save_trained)
            self.accelerator.register_load_state_pre_hook(self._load_trained)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save a checkpoint. It is complete or not there."""
        part, whole = self.folder / f"part-{step}", self.folder / f"checkpoint-{step}"
        if self.accelerator.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        options = {"exclude_frozen_parameters": True} if self.deepspeed else {}
        self.accelerator.save_state(str(part), **options)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (part / STATE).write_text(json.dumps(state) + "\n")
            shutil.rmtree(whole, ignore_errors=True)
            part.rename(whole)
            self._remove_old()
        self.accelerator.wait_for_everyone()

    def load_last(self) -> dict[str, Any] | None:
        """Go on from the last checkpoint. Returns its state; None if there is none."""
        found = get_last_checkpoint(str(self.folder)) if self.folder.is_dir() else None
        if found is None:
            return None
        options = {"load_module_strict": False} if self.deepspeed else {}
        self.accelerator.load_state(found, **options)
        state: dict[str, Any] = json.loads((Path(found) / STATE).read_text())
        return state

    def _remove_old(self) -> None:
        steps = sorted(int(path.name.rpartition("-")[2]) for path in self.folder.glob("checkpoint-*"))
        for step in steps[: -self.keep]:
            shutil.rmtree(self.folder / f"checkpoint-{step}")

    def _save_trained(self, _models: list[nn.Module], weights: list[dict[str, Tensor]], folder: str) -> None:
        weights.clear()
        if self.accelerator.is_main_process:
            trained = {name: weight.detach().contiguous() for name, weight in self._find_trained().items()}
            save_file(trained, Path(folder) / TRAINED)

    def _load_trained(self, models: list[nn.Module], folder: str) -> None:
        models.clear()
        saved = load_file(Path(folder) / TRAINED)
        for name, weight in self._find_trained().items():
            weight.data.copy_(saved[name])

    def _find_trained(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
