"""Load Hugging Face models strictly, and use the weights of one base for scores and for each policy family."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from transformers import AutoModel, AutoModelForCausalLM
from transformers.utils import logging

from tureen_core.artifact import Artifact, ArtifactError, read_weights
from tureen_core.capped_attention import keep_attention_cap
from tureen_core.grouped_attention import group_queries
from tureen_core.packed.exactness import find_packing_obstacle
from tureen_core.soup import Stack, concatenate_adapters
from tureen_serve.runtimes.catalogue import LoadedBase
from tureen_serve.runtimes.contract import BatchLimits, Scorer
from tureen_serve.runtimes.footprint import BaseKey, count_weights, make_base_key
from tureen_serve.runtimes.on_transformers import onednn
from tureen_serve.runtimes.on_transformers.accelerator import translate_device_failure
from tureen_serve.runtimes.on_transformers.class_scorer import load_class_scorer
from tureen_serve.runtimes.on_transformers.generator import TransformersStepper
from tureen_serve.runtimes.on_transformers.packed_scorer import PackedScorer
from tureen_serve.runtimes.on_transformers.prompt_memory import NO_STORE, PromptStore
from tureen_serve.runtimes.on_transformers.rank_gate import RankGate, attach_adapters
from tureen_serve.runtimes.on_transformers.running_text import StepLimits
from tureen_serve.runtimes.on_transformers.scorer import TransformersScorer
from tureen_serve.runtimes.on_transformers.workspace import count_state_bytes, count_workspace_bytes
from tureen_serve.runtimes.readout import ReadOut, make_readout


class TransformersRuntime:
    """Loads models in one dtype on one device, with sdpa attention.

    Args:
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` is float32 on a CPU and bfloat16 elsewhere.
        device: as torch names it; ``auto`` is the first GPU, or the CPU if there is none.
        limits: the limits of one batch of scores.
        step_limits: the limits of one family's running texts.
        packs: whether scores run packed if the model can do so exactly.
        prompt_memory_bytes: the memory of all scorers for prompts of earlier batches.
        text_memory_bytes: the memory of each family for the keys and values of running texts; None for the number of
            tokens in ``step_limits``.

    Attributes:
        bases: the bases under the scorers that are open, without adapters. An adapter that is loaded later shares their
            weights.
        workspace_bytes: the memory that one batch of scores takes at most, by the models that were loaded.
    """

    def __init__(
        self,
        dtype: str,
        device: str,
        limits: BatchLimits,
        step_limits: StepLimits | None = None,
        packs: bool = True,
        prompt_memory_bytes: int = 0,
        text_memory_bytes: int | None = None,
    ) -> None:
        gpu = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(gpu if device == "auto" else device)
        self.dtype = ("float32" if self._device.type == "cpu" else "bfloat16") if dtype == "auto" else dtype
        self._limits = limits
        self._step_limits = step_limits or StepLimits()
        self._prompts = PromptStore(prompt_memory_bytes)
        self._text_memory_bytes = text_memory_bytes
        self._packs = packs
        self.bases: WeakValueDictionary[BaseKey, Any] = WeakValueDictionary()
        self.workspace_bytes = 0
        logging.disable_progress_bar()

    def limit_prompts(self, capacity: int) -> None:
        """Keep at most ``capacity`` bytes of computed prompts from now on."""
        self._prompts.limit(capacity)

    def reserve_memory(self, engines: Sequence[str]) -> None:
        """Do nothing: all models are in this process and share its memory."""

    def load_base(
        self, folder: Path, tokenizer: Any, rewards: Sequence[Artifact], families: Mapping[str, Stack]
    ) -> LoadedBase:
        """Load a base once, with a scorer if there are rewards, and a stepper for each family.

        The weights are shared. Each scorer and stepper has its own module tree and gate, since they run in different
        threads.

        Raises:
            ArtifactError: a weight is missing in the folder.
            SoupError: an adapter does not fit the base's modules.
        """
        model = self._load(AutoModelForCausalLM if families else AutoModel, folder)
        steppers = [self._make_stepper(copy_module_tree(model), stack, tokenizer) for stack in families.values()]
        if not rewards:
            return LoadedBase([], steppers)
        scorer = self._load_scorer(model.base_model if families else model, rewards, make_base_key(rewards[0], folder))
        return LoadedBase([(scorer, rewards)], steppers)

    def load_late(self, folder: Path, artifacts: Sequence[Artifact]) -> Scorer:
        """Load one full checkpoint, or reward adapters. These share the weights of their base with the open scorers.

        Args:
            folder: the folder of the base.

        Raises:
            ArtifactError: a weight is missing in the folder.
            PlainError: as :meth:`load_checkpoint`.
            SoupError: an adapter does not fit the base's modules.
        """
        if artifacts[0].manifest.weights == "full":
            return self.load_checkpoint(artifacts[0])
        key = make_base_key(artifacts[0], folder)
        base = self.bases.get(key)
        backbone = self._load(AutoModel, folder) if base is None else copy_module_tree(base)
        return self._load_scorer(backbone, artifacts, key)

    def find_late_obstacle(self, artifact: Artifact, folder: Path) -> str | None:  # noqa: ARG002
        """Return None: everything can be loaded while the server runs."""
        return None

    def measure_late(self, folder: Path, artifacts: Sequence[Artifact]) -> int:
        """Estimate the bytes of weights that are not loaded yet, from the headers of their files."""
        folders = [each.folder for each in artifacts]
        if artifacts[0].manifest.weights != "full" and make_base_key(artifacts[0], folder) not in self.bases:
            folders.append(folder)
        width: int = getattr(torch, self.dtype).itemsize
        return width * sum(map(count_weights, folders))

    def find_free_bytes(self) -> int | None:
        """Find the free memory of a GPU."""
        return torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else None

    def load_checkpoint(self, artifact: Artifact) -> Scorer:
        """Load a full reward checkpoint, saved by Hugging Face as ``…ForSequenceClassification``.

        Raises:
            ArtifactError: a weight is missing.
            PlainError: a weight is missing where the checkpoint's own class computes the rewards.
        """
        if artifact.manifest.head.kind == "model":
            return load_class_scorer(artifact, getattr(torch, self.dtype), self._device, self._limits)
        readout = make_readout(artifact, self._device)
        return self._make_scorer(self._load(AutoModel, artifact.folder), {artifact.name: readout}, None)

    def _load_scorer(self, backbone: Any, artifacts: Sequence[Artifact], key: BaseKey) -> Scorer:
        """Make the scorer of adapters. ``backbone`` has none yet and belongs to the scorer."""
        base = self.bases.get(key)
        if base is None:
            base = self.bases[key] = copy_module_tree(backbone)
        gate = attach_adapters(backbone, concatenate_adapters([read_weights(each)[0] for each in artifacts]))
        readouts = {artifact.name: make_readout(artifact, self._device) for artifact in artifacts}
        return self._make_scorer(backbone, readouts, gate, base)

    def _make_scorer(
        self, backbone: Any, readouts: Mapping[str, ReadOut], gate: RankGate | None, base: Any = None
    ) -> Scorer:
        """Make a packed scorer, or a padded one if the model cannot run packed. Its description says why."""
        reason = self._find_obstacle(backbone)
        if reason is not None:
            return TransformersScorer(backbone, readouts, gate, self._limits, f"padded: {reason}", self._prompts, base)
        compiled = self._device.type == "cuda"
        compiler, store = ("inductor", NO_STORE) if compiled else (None, self._prompts)
        return PackedScorer(backbone, readouts, gate, self._limits, compiler, store, base)

    def _find_obstacle(self, backbone: Any) -> str | None:
        """Say why scores must run padded; None if they can run packed."""
        if not self._packs:
            return "packing is off"
        if self._device.type == "cuda" and self.dtype == "float32":
            return "FlashAttention needs 16 bits"
        with translate_device_failure():
            return find_packing_obstacle(backbone)

    def _make_stepper(self, model: Any, stack: Stack, tokenizer: Any) -> TransformersStepper:
        limits = self._step_limits
        if self._text_memory_bytes is not None and self._device.type == "cpu":
            tokens = self._text_memory_bytes // count_state_bytes(model.config, model.dtype)
            limits = replace(limits, cache_tokens=tokens)
        group_queries(model)
        return TransformersStepper(model, attach_adapters(model, stack), tokenizer, limits)

    def _load(self, kind: Any, folder: Path) -> Any:
        """Load a model, and refuse a folder that lacks a weight, which would be random.

        An encoder's pooler may be missing, since it is not used.
        """
        model, found = kind.from_pretrained(
            folder,
            dtype=getattr(torch, self.dtype),
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        missing = [key for key in found["missing_keys"] if not key.startswith("pooler.")]
        if missing:
            raise ArtifactError(f"{folder.name}: the weight {min(missing)} is missing; copy or save the model again")
        model = keep_attention_cap(model).requires_grad_(False).to(self._device)
        if onednn.is_onednn_faster(model):
            onednn.replace_linears(model)
        needed = count_workspace_bytes(model.config, model.dtype, self._limits.batch_tokens)
        self.workspace_bytes = max(self.workspace_bytes, needed)
        return model


def copy_module_tree(model: Any) -> Any:
    """Copy a model's tree of modules. The copy uses the same parameters and buffers."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})
