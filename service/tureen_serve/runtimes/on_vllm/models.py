"""The vLLM runtime: start the engines that a server needs, and leave other reward models to transformers.

A base with reward models and experts needs two engines, since an engine of vLLM either pools or generates. Each gets a
share of the GPU's memory. The adapters for engines are in a temporary folder, which is deleted when the process ends,
and checkpoints without heads in the cache.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import vllm
from packaging.version import Version
from vllm.config import PoolerConfig, StructuredOutputsConfig
from vllm.platforms import current_platform

from tureen_core.artifact import HEAD, Artifact, read_weights
from tureen_core.base import CACHE
from tureen_core.soup import Stack, concatenate_adapters
from tureen_serve.runtimes.catalogue import LoadedBase, name_score_lane
from tureen_serve.runtimes.contract import BatchLimits, Scorer
from tureen_serve.runtimes.footprint import count_weights
from tureen_serve.runtimes.on_transformers.models import TransformersRuntime
from tureen_serve.runtimes.on_vllm.adapters import Adapters, GatedAdapters, MergedAdapters, find_gate_obstacle
from tureen_serve.runtimes.on_vllm.engine import VllmEngine
from tureen_serve.runtimes.on_vllm.engine_arguments import TOTAL, divide_memory, make_lora_arguments
from tureen_serve.runtimes.on_vllm.generator import VllmGenerator
from tureen_serve.runtimes.on_vllm.internals import PROVEN_RELEASES
from tureen_serve.runtimes.on_vllm.scorer import VllmScorer
from tureen_serve.runtimes.on_vllm.selftest import find_gate_difference
from tureen_serve.runtimes.on_vllm.views import find_causal_architecture, keep_headless_view, write_decoder_view
from tureen_serve.runtimes.readout import make_readout
from tureen_serve.runtimes.sources import LoadError
from tureen_serve.vllm_settings import VllmSettings

LOG = logging.getLogger(__name__)
LAST_TOKEN = {"eos", "last"}
GENERATING = {"runner": "generate", "structured_outputs_config": StructuredOutputsConfig(backend="guidance")}
POOLING: dict[str, Any] = {
    "runner": "pooling",
    "convert": "embed",
    "pooler_config": PoolerConfig(seq_pooling_type="LAST", use_activation=False),
}
SMALL = 2_000_000_000  # parameters; on a GPU the packed scorer is faster for smaller backbones
CPU_BLOCK = 32  # tokens; with the default of 128 the prefix cache shares little of a prompt
GIB = 2**30
CPU = torch.device("cpu")


class VllmRuntime:
    """Starts engines of vLLM.

    Args:
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` is float32 on a CPU and bfloat16 elsewhere.
        device: ``auto``, or the kind of device that this vLLM is built for.
        limits: the limits of one batch of scores.
        settings: the settings of the engines.
        cache: the folder for checkpoints without their heads.

    Raises:
        LoadError: this vLLM is built for another kind of device.
    """

    workspace_bytes = 0  # the engines' memory is theirs, see `vllm.cache_gib` and `vllm.memory`

    def __init__(
        self, dtype: str, device: str, limits: BatchLimits, settings: VllmSettings, cache: Path = CACHE
    ) -> None:
        kind = current_platform.device_type
        if device not in ("auto", kind):
            raise LoadError(
                f"device: use auto or {kind}, for which this vLLM is built; CUDA_VISIBLE_DEVICES chooses a GPU"
            )
        self._on_cpu = kind == "cpu"
        self.dtype = ("float32" if self._on_cpu else "bfloat16") if dtype == "auto" else dtype
        self.version = vllm.__version__
        self._limits, self._settings, self._cache = limits, settings, cache
        self._transformers = TransformersRuntime(dtype, device, limits)
        self._files = tempfile.TemporaryDirectory(prefix="tureen-vllm-")
        self._shares: Mapping[str, float] = {}

    def limit_prompts(self, capacity: int) -> None:
        """Do nothing: the engines keep prompts in their own memory."""

    def reserve_memory(self, engines: Sequence[str]) -> None:
        """Divide the GPU's memory before the first engine starts.

        Raises:
            LoadError: a configured share names an unknown engine, or the shares add up to more than one GPU.
        """
        self._shares = divide_memory(engines, self._settings.memory)

    def load_base(
        self, folder: Path, tokenizer: Any, rewards: Sequence[Artifact], families: Mapping[str, Stack]
    ) -> LoadedBase:
        """Start an engine for the rewards of a base, and one for each of its families.

        Transformers scores the rewards that vLLM cannot; see :meth:`_find_obstacle`.

        Raises:
            LoadError: vLLM cannot start.
        """
        reasons = {each.name: self._find_obstacle(each, folder) for each in rewards}
        own = [each for each in rewards if reasons[each.name] is None]
        others = [each for each in rewards if reasons[each.name] is not None]
        scorers: list[tuple[Scorer, Sequence[Artifact]]] = []
        policies: list[VllmGenerator] = []
        with ExitStack() as undo:
            if own:
                scorers.append((self._start_scorer(folder, own), own))
                undo.callback(scorers[-1][0].close)
            if others:
                for artifact in others:
                    LOG.info("%s is scored by transformers: %s", artifact.name, reasons[artifact.name])
                scorers += self._transformers.load_base(folder, tokenizer, others, {}).scorers
            for name, stack in families.items():
                policies.append(self._start_generator(name, folder, stack, tokenizer))
                undo.callback(policies[-1].close)
            undo.pop_all()
        return LoadedBase(scorers, policies)

    def load_checkpoint(self, artifact: Artifact) -> Scorer:
        """Start an engine for a full reward checkpoint, without its head.

        Raises:
            ArtifactError: the head cannot be used.
            LoadError: vLLM cannot start.
        """
        reason = self._find_obstacle(artifact, artifact.folder)
        if reason is not None:
            LOG.info("%s is scored by transformers: %s", artifact.name, reason)
            return self._transformers.load_checkpoint(artifact)
        readout = make_readout(artifact, CPU)
        extra = artifact.plain.extra_keys if artifact.plain else (f"{HEAD}.",)
        view = keep_headless_view(artifact.folder, self._cache, extra)
        engine = self._start_engine(artifact.name, view, None, POOLING)
        return VllmScorer(engine, {artifact.name: readout}, None, self._limits)

    def find_late_obstacle(self, artifact: Artifact, folder: Path) -> str | None:
        """Say that vLLM scores a reward model: its engines divide the device's memory once, at the start."""
        if self._find_obstacle(artifact, folder) is not None:
            return None
        return "vLLM scores it, and vLLM's engines get their memory at the start; start the server again"

    def measure_late(self, folder: Path, artifacts: Sequence[Artifact]) -> int:
        """As :meth:`TransformersRuntime.measure_late`, which loads them."""
        return self._transformers.measure_late(folder, artifacts)

    def find_free_bytes(self) -> int | None:
        """As :meth:`TransformersRuntime.find_free_bytes`."""
        return self._transformers.find_free_bytes()

    def load_late(self, folder: Path, artifacts: Sequence[Artifact]) -> Scorer:
        """Load reward models that transformers scores."""
        return self._transformers.load_late(folder, artifacts)

    def _find_obstacle(self, artifact: Artifact, folder: Path) -> str | None:
        """Say why transformers scores an artifact; None if vLLM does."""
        if artifact.manifest.head.kind == "model":
            return "its own class computes the rewards"
        pooling = artifact.manifest.reading.pooling
        if pooling not in LAST_TOKEN:
            return f"it is pooled by {pooling}, over all tokens"
        if self._settings.scores == "transformers":
            return "as configured"
        if self._settings.scores == "auto" and not self._on_cpu and count_weights(folder) < SMALL:
            return "the packed scorer is faster for a backbone of this size"
        return _find_architecture_obstacle(folder)

    def _start_scorer(self, folder: Path, artifacts: Sequence[Artifact]) -> VllmScorer:
        stack = concatenate_adapters([read_weights(artifact)[0] for artifact in artifacts])
        engine, adapters = self._start_gated(name_score_lane(folder), folder, stack, POOLING)
        readouts = {artifact.name: make_readout(artifact, CPU) for artifact in artifacts}
        return VllmScorer(engine, readouts, adapters, self._limits)

    def _start_generator(self, name: str, folder: Path, stack: Stack, tokenizer: Any) -> VllmGenerator:
        runner = GENERATING | write_decoder_view(folder, tokenizer, Path(self._files.name) / f"{name}-tokenizer")
        if not stack.modules:
            return VllmGenerator(self._start_engine(name, folder, None, runner), None, tokenizer)
        return VllmGenerator(*self._start_gated(name, folder, stack, runner), tokenizer)

    def _start_gated(
        self, name: str, folder: Path, stack: Stack, runner: Mapping[str, Any]
    ) -> tuple[VllmEngine, Adapters]:
        """Start an engine with the gate; if the gate fails its test, one with a LoRA for each weight vector."""
        out = Path(self._files.name) / name
        slots = self._settings.adapters
        merged = MergedAdapters(stack, folder.name, torch.float32, out, slots, 4 * slots, bare=not self._on_cpu)
        reason = self._find_engine_obstacle() or find_gate_obstacle(stack)
        if reason is None:
            gated = GatedAdapters(stack, folder.name, torch.float32, out)
            with ExitStack() as undo:
                engine = self._start_engine(name, folder, gated, runner)
                undo.callback(engine.close)
                reason = find_gate_difference(engine, gated, merged, self.dtype)
                if reason is None:
                    undo.pop_all()
                    return engine, gated
        LOG.warning("%s: one LoRA for each weight vector, since %s", name, reason)
        return self._start_engine(name, folder, merged, runner), merged

    def _find_engine_obstacle(self) -> str | None:
        if self._settings.gate == "off":
            return "the gate is switched off"
        release = Version(self.version).base_version
        if release not in PROVEN_RELEASES:
            return f"the gate was not tested with vLLM {release}, but with {', '.join(PROVEN_RELEASES)}"
        return None

    def _start_engine(
        self, name: str, folder: Path, adapters: Adapters | None, runner: Mapping[str, Any]
    ) -> VllmEngine:
        arguments = {
            **self._make_arguments(name, folder),
            **runner,
            **(make_lora_arguments(adapters) if adapters else {}),
        }
        LOG.info("%s: starting vLLM %s", name, self.version)
        return VllmEngine(
            name, arguments, adapters is not None and adapters.gated, self._settings.restarts, self._files
        )

    def _make_arguments(self, name: str, folder: Path) -> dict[str, Any]:
        settings = self._settings
        on_cpu = {"kv_cache_memory_bytes": int(settings.cache_gib * GIB), "block_size": CPU_BLOCK}
        return {
            "model": str(folder),
            "dtype": self.dtype,
            "max_model_len": settings.context,
            "max_num_batched_tokens": settings.step_tokens,
            "max_num_seqs": settings.rows,
            "tensor_parallel_size": settings.tensor_parallel,
            "enforce_eager": settings.eager or self._on_cpu,
            "gpu_memory_utilization": self._shares.get(name, TOTAL),
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "seed": 0,
            **(on_cpu if self._on_cpu else {}),
        }


def _find_architecture_obstacle(folder: Path) -> str | None:
    architecture = find_causal_architecture(folder)
    if architecture is None:
        return "its backbone is not a causal model"
    return None if architecture in vllm.ModelRegistry.get_supported_archs() else f"vLLM has no {architecture}"
