"""The vLLM runtime: which engines a server needs, with what arguments, and what stays with transformers.

A base with reward models and experts becomes two engines, since vLLM either pools or generates; each gets a share of
the GPU's memory. Files that engines read (adapters without heads, checkpoints without heads) lie in a folder of this
process that goes with it.
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
from vllm.config import PoolerConfig
from vllm.platforms import current_platform

from tureen_core.artifact import Artifact, check_head, read_head_tensors, read_weights
from tureen_core.soup import Stack, concatenate_adapters
from tureen_serve.runtimes.artifacts import LoadError
from tureen_serve.runtimes.catalogue import Standing, scores_of
from tureen_serve.runtimes.contract import Limits, Scorer
from tureen_serve.runtimes.on_transformers.models import TransformersRuntime
from tureen_serve.runtimes.on_vllm.adapters import Adapters, GatedAdapters, MergedAdapters, padded_rank, ungateable
from tureen_serve.runtimes.on_vllm.engine import VllmEngine
from tureen_serve.runtimes.on_vllm.generator import VllmGenerator
from tureen_serve.runtimes.on_vllm.internals import CONFIG, EXTENSION, PROVEN
from tureen_serve.runtimes.on_vllm.scorer import VllmScorer
from tureen_serve.runtimes.on_vllm.selftest import gate_differs
from tureen_serve.runtimes.on_vllm.views import causal, count_weights, headless
from tureen_serve.runtimes.readout import read_out
from tureen_serve.settings import VllmSettings

LOG = logging.getLogger(__name__)
LAST_TOKEN = {"eos", "last"}
GENERATING: dict[str, Any] = {"runner": "generate"}
POOLING: dict[str, Any] = {
    "runner": "pooling",
    "convert": "embed",
    "pooler_config": PoolerConfig(seq_pooling_type="LAST", use_activation=False),
}
TOTAL = 0.9
SMALL = 2_000_000_000
CPU_BLOCK = 32  # tokens; the default of 128 shares little of a prompt
GIB = 2**30
CPU = torch.device("cpu")
GATE_VERSION = 1


class VllmRuntime:
    """Starts engines.

    Args:
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``auto`` is float32 on a CPU and bfloat16 elsewhere.
        device: ``auto``, or the kind of device that this vLLM is built for.
        limits: of one batch of scores.
        settings: of the engines.

    Raises:
        LoadError: this vLLM does not run on that device.
    """

    def __init__(self, dtype: str, device: str, limits: Limits, settings: VllmSettings) -> None:
        kind = current_platform.device_type
        if device not in ("auto", kind):
            raise LoadError(f"device: this vLLM runs on {kind}; choose among several with CUDA_VISIBLE_DEVICES")
        self._on_cpu = kind == "cpu"
        self.dtype = ("float32" if self._on_cpu else "bfloat16") if dtype == "auto" else dtype
        self.version = vllm.__version__
        self._limits, self._settings = limits, settings
        self._plain = TransformersRuntime(dtype, device, limits)
        self._files = tempfile.TemporaryDirectory(prefix="tureen-vllm-")
        self._shares: Mapping[str, float] = {}

    def expect(self, engines: Sequence[str]) -> None:
        """Share the GPU's memory out before the first engine starts.

        Raises:
            LoadError: the configured shares name another engine, or add up to more than there is.
        """
        self._shares = shares(engines, self._settings.memory)

    def base(
        self, folder: Path, tokenizer: Any, rewards: Sequence[Artifact], families: Mapping[str, Stack]
    ) -> Standing:
        """Start an engine for the rewards of a base and one for each of its families.

        Rewards that are pooled otherwise than at the last token stay with transformers.

        Raises:
            LoadError: vLLM cannot start.
        """
        reasons = {each.name: self._elsewhere(each, folder) for each in rewards}
        here = [each for each in rewards if reasons[each.name] is None]
        elsewhere = [each for each in rewards if reasons[each.name] is not None]
        scorers: list[tuple[Scorer, Sequence[Artifact]]] = []
        policies: list[VllmGenerator] = []
        with ExitStack() as undo:
            if here:
                scorers.append((self._scorer(folder, here), here))
                undo.callback(scorers[-1][0].close)
            if elsewhere:
                for artifact in elsewhere:
                    LOG.info("%s is scored by transformers: %s", artifact.name, reasons[artifact.name])
                scorers += self._plain.base(folder, tokenizer, elsewhere, {}).scorers
            for name, stack in families.items():
                policies.append(self._generator(name, folder, stack))
                undo.callback(policies[-1].close)
            undo.pop_all()
        return Standing(scorers, policies)

    def checkpoint(self, artifact: Artifact) -> Scorer:
        """Start an engine for a full reward checkpoint, without its head.

        Raises:
            ArtifactError: the head cannot be used.
            LoadError: vLLM cannot start.
        """
        reason = self._elsewhere(artifact, artifact.folder) or _unknown(artifact.folder)
        if reason is not None:
            LOG.info("%s is scored by transformers: %s", artifact.name, reason)
            return self._plain.checkpoint(artifact)
        head = check_head(artifact.manifest, read_head_tensors(artifact.folder))
        view = headless(artifact.folder, Path(self._files.name) / artifact.name)
        engine = self._engine(artifact.name, view, None, POOLING)
        return VllmScorer(engine, {artifact.name: read_out(artifact, head, CPU)}, None, self._limits)

    def _elsewhere(self, artifact: Artifact, folder: Path) -> str | None:
        """Why transformers scores an artifact, if it does."""
        pooling = artifact.manifest.reading.pooling
        if pooling not in LAST_TOKEN:
            return f"it is pooled by {pooling}, over all tokens"
        if self._settings.scores == "transformers":
            return "as configured"
        if self._settings.scores == "auto" and not self._on_cpu and count_weights(folder) < SMALL:
            return "packed is the faster for a backbone of this size"
        return None

    def _scorer(self, folder: Path, artifacts: Sequence[Artifact]) -> VllmScorer:
        weights = {artifact.name: read_weights(artifact) for artifact in artifacts}
        stack = concatenate_adapters([adapter for adapter, _ in weights.values()])
        engine, adapters = self._gated(scores_of(folder), folder, stack, POOLING)
        readouts = {
            artifact.name: read_out(artifact, head, CPU)
            for artifact in artifacts
            if (head := weights[artifact.name][1]) is not None
        }
        return VllmScorer(engine, readouts, adapters, self._limits)

    def _generator(self, name: str, folder: Path, stack: Stack) -> VllmGenerator:
        if not stack.modules:
            return VllmGenerator(self._engine(name, folder, None, GENERATING), None)
        return VllmGenerator(*self._gated(name, folder, stack, GENERATING))

    def _gated(self, name: str, folder: Path, stack: Stack, runner: Mapping[str, Any]) -> tuple[VllmEngine, Adapters]:
        """An engine under the gate, if the gate passes its test there; else one with a LoRA for each soup."""
        out = Path(self._files.name) / name
        slots = self._settings.adapters
        merged = MergedAdapters(stack, folder.name, torch.float32, out, slots, 4 * slots, bare=not self._on_cpu)
        reason = self._no_gate() or ungateable(stack)
        if reason is None:
            gated = GatedAdapters(stack, folder.name, torch.float32, out)
            with ExitStack() as undo:
                engine = self._engine(name, folder, gated, runner)
                undo.callback(engine.close)
                reason = gate_differs(engine, gated, merged, self.dtype)
                if reason is None:
                    undo.pop_all()
                    return engine, gated
        LOG.warning("%s: one LoRA for each weight vector, since %s", name, reason)
        return self._engine(name, folder, merged, runner), merged

    def _no_gate(self) -> str | None:
        if self._settings.gate == "off":
            return "the gate is switched off"
        release = Version(self.version).base_version
        if release not in PROVEN:
            return f"the gate was not proven on vLLM {release}, but on {', '.join(PROVEN)}"
        return None

    def _engine(self, name: str, folder: Path, adapters: Adapters | None, runner: Mapping[str, Any]) -> VllmEngine:
        arguments = {**self._common(name, folder), **runner, **(_lora(adapters) if adapters else {})}
        LOG.info("%s: starting vLLM %s", name, self.version)
        return VllmEngine(
            name, arguments, adapters is not None and adapters.gated, self._settings.restarts, self._files
        )

    def _common(self, name: str, folder: Path) -> dict[str, Any]:
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


def shares(engines: Sequence[str], given: Mapping[str, float]) -> dict[str, float]:
    """Each engine's share of a GPU's memory: as configured, and the others alike in what is left of nine tenths.

    Raises:
        LoadError: a share is given to no engine, or they add up to more than a GPU.
    """
    strange = sorted(set(given) - set(engines))
    if strange:
        raise LoadError(f"vllm.memory.{strange[0]}: no engine is called so; there is {', '.join(engines)}")
    taken = sum(given.values())
    rest = [name for name in engines if name not in given]
    if taken > 1 or (rest and taken >= TOTAL):
        told = " + ".join(f"{share:g} ({name})" for name, share in given.items())
        left = f", and {', '.join(rest)} needs some too" if rest else ""
        raise LoadError(f"vllm.memory: {told} is {taken:g} of a GPU{left}; shares add up to 1 at the most")
    return dict(given) | {name: (TOTAL - taken) / len(rest) for name in rest}


def _unknown(folder: Path) -> str | None:
    architecture = causal(folder)
    if architecture is None:
        return "its backbone is no causal one"
    return None if architecture in vllm.ModelRegistry.get_supported_archs() else f"vLLM has no {architecture}"


def _lora(adapters: Adapters) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "enable_lora": True,
        "max_loras": adapters.slots,
        "max_lora_rank": padded_rank(adapters.rank),
        "max_cpu_loras": 2 * adapters.slots,
        "lora_target_modules": list(adapters.targets),
    }
    if isinstance(adapters, GatedAdapters):
        spec = {"experts": list(adapters.names), "ranks": list(adapters.ranks), "factor": adapters.factorable}
        arguments["worker_extension_cls"] = EXTENSION
        arguments["additional_config"] = {CONFIG: {"version": GATE_VERSION, **spec}}
    return arguments
