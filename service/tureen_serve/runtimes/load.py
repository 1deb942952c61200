"""Load artifacts into a runtime, each base once, and check that their probes have the scores of the training.

:data:`RUNTIMES` is the table of runtimes. A runtime is imported only if it is used.
"""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import torch

from tureen.errors import TureenError
from tureen_core.artifact import ArtifactError
from tureen_core.base import CACHE, BaseError
from tureen_core.lora import SoupError
from tureen_core.plain.options import PlainError
from tureen_core.reading import ControlMarkRule
from tureen_serve.runtimes.artifacts import check_reward_names, open_reward
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.catalogue import Backbone, LoadedModels, OpenedReward, Policy, Runtime, name_score_lane
from tureen_serve.runtimes.contract import BatchLimits
from tureen_serve.runtimes.families import open_family
from tureen_serve.runtimes.on_upstream.open_upstream import open_upstream
from tureen_serve.runtimes.opened_families import OpenedFamily
from tureen_serve.runtimes.probes import (
    PROBES_AT_START,
    Proof,
    log_difference,
    prove_family,
    prove_reward,
)
from tureen_serve.runtimes.sources import LoadError
from tureen_serve.settings import FamilyEntry, RewardEntry
from tureen_serve.vllm_settings import VllmSettings

__all__ = ["UNUSABLE", "LoadError", "LoadOptions", "Proof", "load_models", "open_models", "prove_models"]

RUNTIMES = {
    "transformers": ("tureen_serve.runtimes.on_transformers.models", "TransformersRuntime"),
    "vllm": ("tureen_serve.runtimes.on_vllm.models", "VllmRuntime"),
}

UNUSABLE = (ArtifactError, BaseError, PlainError, SoupError, TureenError)  # what says that a model cannot be served


@dataclass(frozen=True)
class LoadOptions:
    """How models are loaded.

    Attributes:
        runtime: ``auto`` or a name of :data:`RUNTIMES`.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        device: ``auto``, or a device as torch names it.
        cache: the folder for packaged bases after their conversion; None for the default one.
        limits: the limits of a batch of scores.
        prompt_memory_bytes: memory for computed prompts, if the runtime keeps them itself.
        text_memory_bytes: memory of each family for texts that are being written, if the runtime holds them itself;
            None for its default number of tokens.
        vllm: settings of the vLLM engines.
        control_marks: how control marks inside a message are read; None for the setting of each artifact's reading.
        bases: the folders of bases, by the names that models have for them.
    """

    runtime: str = "auto"
    dtype: str = "auto"
    device: str = "auto"
    cache: Path | None = None
    limits: BatchLimits = BatchLimits()
    prompt_memory_bytes: int = 0
    text_memory_bytes: int | None = None
    vllm: VllmSettings = VllmSettings()
    control_marks: ControlMarkRule | None = None
    bases: Mapping[str, Path] = field(default_factory=dict)

    def make_bases(self) -> Bases:
        """Make what finds the bases of models. Nothing is known of them yet."""
        return Bases(self.cache or CACHE, self.control_marks, self.bases)


def load_models(
    rewards: Sequence[RewardEntry],
    families: Sequence[FamilyEntry],
    options: LoadOptions = LoadOptions(),
    probes: int | None = PROBES_AT_START,
) -> LoadedModels:
    """Open, verify and load artifacts, and run the first probes of each.

    A probe whose score differs is not an error: it is the ``failure`` of the result.

    Example::

        loaded = load_models([RewardEntry(path=Path("artifacts/helpful"))], [])
        print(loaded.runtime, loaded.failure)

    Args:
        probes: the number of probes of each artifact; None for all.

    Raises:
        LoadError: an artifact, a base, a template, a name or a preset is wrong. The message says which.
    """
    try:
        runtime, description = make_runtime(options)
        loaded = open_models(rewards, families, options, runtime, description)
        with ExitStack() as undo:
            undo.callback(loaded.close)
            failed = [str(proof) for proof in prove_models(loaded, runtime.dtype, probes) if not proof.holds]
            undo.pop_all()
    except UNUSABLE as error:
        raise LoadError(str(error)) from error
    failure = f"{failed[0]} ({len(failed)} such differences)" if failed else None
    return replace(loaded, failure=failure, loader=runtime)


def choose_runtime(options: LoadOptions) -> tuple[str, str]:
    """Choose the runtime: its name, and the reason for it."""
    if options.runtime != "auto":
        return options.runtime, "as configured"
    if find_spec("vllm") is None:
        return "transformers", "vLLM is not installed"
    if not torch.cuda.is_available() or options.device == "cpu":
        return "transformers", "there is no GPU to run vLLM on"
    return "vllm", "vLLM is installed and there is a GPU"


def make_runtime(options: LoadOptions) -> tuple[Runtime, str]:
    """Make the runtime, and describe it for the log.

    Raises:
        LoadError: the runtime is not installed, or cannot use the device.
    """
    name, reason = choose_runtime(options)
    if name not in RUNTIMES:
        raise LoadError(f"runtime: this version has no {name!r}; use auto or one of {', '.join(RUNTIMES)}")
    if name == "vllm" and find_spec("vllm") is None:
        raise LoadError("runtime: vLLM is not installed; pip install 'tureen[vllm]', or use runtime: transformers")
    module, kind = RUNTIMES[name]
    memory = {"prompt_memory_bytes": options.prompt_memory_bytes, "text_memory_bytes": options.text_memory_bytes}
    own = {"settings": options.vllm, "cache": options.cache or CACHE} if name == "vllm" else memory
    runtime: Runtime = getattr(importlib.import_module(module), kind)(
        options.dtype, options.device, options.limits, **own
    )
    return runtime, f"{name} ({reason})"


def open_models(
    rewards: Sequence[RewardEntry],
    families: Sequence[FamilyEntry],
    options: LoadOptions,
    runtime: Runtime,
    description: str,
) -> LoadedModels:
    """Open all artifacts and load them; if one fails, close what was loaded."""
    bases = options.make_bases()
    models = [open_reward(entry, bases, runtime.dtype) for entry in rewards]
    policies = [open_family(each, bases, runtime.dtype, options.device) for each in families if each.upstream is None]
    check_reward_names(models)
    full = [model for model in models if model.artifact.manifest.weights == "full"]
    adapters = [model for model in models if model not in full]
    runtime.reserve_memory(_list_engines(full, adapters, policies))
    backbones: list[Backbone] = []
    served: list[Policy] = []
    with ExitStack() as undo:
        undo.callback(lambda: LoadedModels(description, tuple(backbones), tuple(served)).close())
        for model in full:
            backbones.append(Backbone(model.artifact.name, runtime.load_checkpoint(model.artifact), model.rewards))
        for folder in dict.fromkeys([each.folder for each in adapters] + [each.folder for each in policies]):
            own_rewards = {each.artifact.name: each for each in adapters if each.folder == folder}
            own_families = {each.family.name: each for each in policies if each.folder == folder}
            base = runtime.load_base(
                folder,
                bases.load_tokenizer(folder) if own_families else None,
                [each.artifact for each in own_rewards.values()],
                {name: each.stack for name, each in own_families.items()},
            )
            for scorer, artifacts in base.scorers:
                read = tuple(reward for artifact in artifacts for reward in own_rewards[artifact.name].rewards)
                backbones.append(Backbone(name_score_lane(folder), scorer, read))
            for each, policy in zip(own_families.values(), base.families, strict=True):
                served.append(Policy(replace(each.family, context=policy.context), policy))
        upstreams = tuple(open_upstream(entry) for entry in families if entry.upstream is not None)
        undo.pop_all()
    order = tuple(entry.name for entry in families)
    opened = tuple(models)
    return LoadedModels(description, tuple(backbones), tuple(served), opened=opened, upstreams=upstreams, order=order)


def _list_engines(
    full: Sequence[OpenedReward], adapters: Sequence[OpenedReward], policies: Sequence[OpenedFamily]
) -> list[str]:
    """List the names of all lanes that will be loaded. In vLLM these are also the names of its engines."""
    scores = [name_score_lane(folder) for folder in dict.fromkeys(each.folder for each in adapters)]
    return [*(each.artifact.name for each in full), *scores, *(each.family.name for each in policies)]


def prove_models(loaded: LoadedModels, dtype: str, most: int | None) -> list[Proof]:
    proofs = []
    for backbone in loaded.backbones:
        by_artifact = {reward.artifact.name: reward for reward in backbone.rewards}
        for reward in by_artifact.values():
            found = prove_reward(reward, backbone.scorer, dtype, most)
            log_difference(reward, found)
            proofs += found
    for policy in loaded.policies:
        proofs += prove_family(policy.family, policy.runtime, dtype, most)
    return proofs
