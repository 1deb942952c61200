"""Hugging Face models for the transformers runtime: strict loading, and several gated trees over one set of weights."""

import copy
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM
from transformers.utils import logging

from tureen_core.artifact import Artifact, ArtifactError, check_head, head_tensors, read_weights
from tureen_core.heads import LinearHead
from tureen_core.soup import Stack, concatenate
from tureen_serve.runtimes.contract import Limits
from tureen_serve.runtimes.rank_gate import attach
from tureen_serve.runtimes.transformers_generator import Room, TransformersStepper
from tureen_serve.runtimes.transformers_scorer import ReadOut, TransformersScorer


class TransformersRuntime:
    """Loads models in one dtype on one device, with sdpa attention.

    Args:
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` is float32 on a CPU and bfloat16 elsewhere.
        device: as torch names it; ``auto`` is the first GPU, else the CPU.
        limits: of one batch of scores.
        room: of one family's running texts.
    """

    def __init__(self, dtype: str, device: str, limits: Limits, room: Room | None = None) -> None:
        gpu = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(gpu if device == "auto" else device)
        self.dtype = ("float32" if self._device.type == "cpu" else "bfloat16") if dtype == "auto" else dtype
        self._limits = limits
        self._room = room or Room()
        logging.disable_progress_bar()

    def base(
        self, folder: Path, tokenizer: Any, rewards: Sequence[Artifact], families: Sequence[Stack]
    ) -> tuple[TransformersScorer | None, list[TransformersStepper]]:
        """Load a base once; over its weights stand a scorer, if there are rewards, and a stepper for each family.

        Each has a module tree and a gate of its own, since they run in different threads.

        Raises:
            ArtifactError: the folder lacks weights.
            SoupError: an adapter stands on another architecture.
        """
        model = self._load(AutoModelForCausalLM if families else AutoModel, folder)
        steppers = [self._stepper(twin(model), stack, tokenizer) for stack in families]
        if not rewards:
            return None, steppers
        return self._scorer(model.base_model if families else model, rewards), steppers

    def checkpoint(self, artifact: Artifact) -> TransformersScorer:
        """Load a full reward checkpoint, ``…ForSequenceClassification`` as Hugging Face saves it."""
        head = check_head(artifact.manifest, head_tensors(artifact.folder))
        model = self._load(AutoModel, artifact.folder)
        return TransformersScorer(model, {artifact.name: self._readout(artifact, head)}, None, self._limits)

    def _scorer(self, backbone: Any, artifacts: Sequence[Artifact]) -> TransformersScorer:
        weights = {artifact.name: read_weights(artifact) for artifact in artifacts}
        gate = attach(backbone, concatenate([adapter for adapter, _ in weights.values()]))
        readouts = {
            artifact.name: self._readout(artifact, head)
            for artifact in artifacts
            if (head := weights[artifact.name][1]) is not None
        }
        return TransformersScorer(backbone, readouts, gate, self._limits)

    def _readout(self, artifact: Artifact, weight: Tensor) -> ReadOut:
        """The head's rows that an objective reads, so that heads of one objective can be blended."""
        reading = artifact.manifest.reading
        weight = weight[: 1 + max(objective.column for objective in artifact.manifest.objectives)]
        head = LinearHead(weight.shape[1], weight.shape[0]).to(self._device).requires_grad_(False)
        head.weight.copy_(weight)
        return ReadOut(head, reading.pooling, reading.eos == "append")

    def _stepper(self, model: Any, stack: Stack, tokenizer: Any) -> TransformersStepper:
        return TransformersStepper(model, attach(model, stack), tokenizer, self._room)

    def _load(self, kind: Any, folder: Path) -> Any:
        """Strictly: a weight that is not in the folder would be a random one. An encoder's pooler is never read."""
        model, found = kind.from_pretrained(
            folder,
            dtype=getattr(torch, self.dtype),
            attn_implementation="sdpa",
            local_files_only=True,
            output_loading_info=True,
        )
        missing = [key for key in found["missing_keys"] if not key.startswith("pooler.")]
        if missing:
            raise ArtifactError(f"{folder.name}: the weight {min(missing)} is missing")
        return model.requires_grad_(False).to(self._device)


def twin(model: Any) -> Any:
    """A second module tree over the same parameters and buffers."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})
