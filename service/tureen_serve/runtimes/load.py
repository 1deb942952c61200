"""From artifacts to runtimes, each base loaded once, and the proof that what is loaded serves what was trained.

:data:`RUNTIMES` is the table of runtimes; each is imported when it is asked for.
"""

import importlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch

from tureen.errors import TureenError
from tureen_core.artifact import ArtifactError, open_artifact
from tureen_core.base import CACHE, BaseError
from tureen_core.lora import SoupError
from tureen_serve.runtimes.artifacts import Bases, LoadError, OpenedFamily, OpenedReward, open_family, open_reward
from tureen_serve.runtimes.catalogue import Backbone, LoadedModels, Policy, Runtime, name_score_lane
from tureen_serve.runtimes.contract import BatchLimits
from tureen_serve.runtimes.probes import Proof, prove_experts, prove_reward
from tureen_serve.settings import FamilyEntry, RewardEntry
from tureen_serve.vllm_settings import VllmSettings

__all__ = ["LoadError", "LoadOptions", "Proof", "check_artifact", "load_models"]

RUNTIMES = {
    "transformers": ("tureen_serve.runtimes.on_transformers.models", "TransformersRuntime"),
    "vllm": ("tureen_serve.runtimes.on_vllm.models", "VllmRuntime"),
}
PROBES_AT_START = 1


@dataclass(frozen=True)
class LoadOptions:
    """How to load.

    Attributes:
        cache: where packaged bases are converted to.
        prompt_memory_bytes: bytes for prompts that were scored, where the runtime keeps them itself.
    """

    runtime: str = "auto"
    dtype: str = "auto"
    device: str = "auto"
    cache: Path | None = None
    limits: BatchLimits = BatchLimits()
    prompt_memory_bytes: int = 0
    vllm: VllmSettings = VllmSettings()


def load_models(
    rewards: Sequence[RewardEntry],
    families: Sequence[FamilyEntry],
    options: LoadOptions = LoadOptions(),
    probes: int | None = PROBES_AT_START,
) -> LoadedModels:
    """Open, verify and load artifacts, and run the first ``probes`` of each again (None: all).

    A probe that differs is not an error but the ``failure`` of what is returned.

    Raises:
        LoadError: an artifact, a base, a template, a name or a preset is wrong; the message says which.
    """
    try:
        runtime, told = _runtime(options)
        loaded = _load(rewards, families, options, runtime, told)
        with ExitStack() as undo:
            undo.callback(loaded.close)
            failed = [str(proof) for proof in _prove(loaded, runtime.dtype, probes) if not proof.holds]
            undo.pop_all()
    except (ArtifactError, BaseError, SoupError, TureenError) as error:
        raise LoadError(str(error)) from error
    failure = f"{failed[0]} ({len(failed)} such differences)" if failed else None
    return replace(loaded, failure=failure)


def check_artifact(folder: Path, options: LoadOptions = LoadOptions()) -> list[Proof]:
    """Verify one artifact, load it and run all its probes.

    Raises:
        LoadError: it cannot be served at all.
    """
    try:
        runtime, told = _runtime(options)
        artifact = open_artifact(folder)
        if artifact.manifest.kind == "reward":
            loaded = _load([RewardEntry(path=folder)], [], options, runtime, told)
        else:
            loaded = _load([], [FamilyEntry(name=artifact.name, experts=[folder])], options, runtime, told)
        try:
            return _prove(loaded, runtime.dtype, None)
        finally:
            loaded.close()
    except (ArtifactError, BaseError, SoupError, TureenError) as error:
        raise LoadError(str(error)) from error


def choose_runtime(options: LoadOptions) -> tuple[str, str]:
    """The runtime's name, and why it is the one."""
    if options.runtime != "auto":
        return options.runtime, "as configured"
    if find_spec("vllm") is None:
        return "transformers", "vLLM is not installed"
    if not torch.cuda.is_available() or options.device == "cpu":
        return "transformers", "there is no GPU to run vLLM on"
    return "vllm", "a GPU and vLLM are here"


def _runtime(options: LoadOptions) -> tuple[Runtime, str]:
    """The runtime and the line that says which and why."""
    name, why = choose_runtime(options)
    if name not in RUNTIMES:
        raise LoadError(f"runtime: {name!r} is not part of this version; there is {', '.join(RUNTIMES)}")
    if name == "vllm" and find_spec("vllm") is None:
        raise LoadError("runtime: vLLM is not installed; pip install 'tureen[vllm]', or take runtime: transformers")
    module, kind = RUNTIMES[name]
    own = {"settings": options.vllm} if name == "vllm" else {"prompt_memory_bytes": options.prompt_memory_bytes}
    runtime: Runtime = getattr(importlib.import_module(module), kind)(
        options.dtype, options.device, options.limits, **own
    )
    return runtime, f"{name} ({why})"


def _load(
    rewards: Sequence[RewardEntry], families: Sequence[FamilyEntry], options: LoadOptions, runtime: Runtime, told: str
) -> LoadedModels:
    bases = Bases(options.cache or CACHE)
    models = [open_reward(entry, bases, runtime.dtype) for entry in rewards]
    policies = [open_family(entry, bases, runtime.dtype) for entry in families]
    _named_once(models)
    full = [part for part in models if part.artifact.manifest.weights == "full"]
    adapters = [part for part in models if part not in full]
    runtime.reserve_memory(_engines(full, adapters, policies))
    backbones: list[Backbone] = []
    served: list[Policy] = []
    with ExitStack() as undo:
        undo.callback(lambda: LoadedModels(told, tuple(backbones), tuple(served)).close())
        for whole in full:
            backbones.append(Backbone(whole.artifact.name, runtime.load_checkpoint(whole.artifact), whole.rewards))
        for folder in dict.fromkeys([part.folder for part in adapters] + [part.folder for part in policies]):
            here = {part.artifact.name: part for part in adapters if part.folder == folder}
            above = {part.family.name: part for part in policies if part.folder == folder}
            standing = runtime.load_base(
                folder,
                bases.load_tokenizer(folder),
                [part.artifact for part in here.values()],
                {name: part.stack for name, part in above.items()},
            )
            for scorer, artifacts in standing.scorers:
                read = tuple(reward for artifact in artifacts for reward in here[artifact.name].rewards)
                backbones.append(Backbone(name_score_lane(folder), scorer, read))
            for part, policy in zip(above.values(), standing.families, strict=True):
                served.append(Policy(replace(part.family, context=policy.context), policy))
        undo.pop_all()
    return LoadedModels(told, tuple(backbones), tuple(served))


def _engines(
    full: Sequence[OpenedReward], adapters: Sequence[OpenedReward], policies: Sequence[OpenedFamily]
) -> list[str]:
    """The names of all that will be loaded, each a lane's and, in vLLM, an engine's."""
    scores = [name_score_lane(folder) for folder in dict.fromkeys(part.folder for part in adapters)]
    return [*(part.artifact.name for part in full), *scores, *(part.family.name for part in policies)]


def _named_once(parts: Sequence[OpenedReward]) -> None:
    for names, what in (
        ([part.artifact.name for part in parts], "reward artifacts are"),
        ([reward.name for part in parts for reward in part.rewards], "rewards are"),
    ):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise LoadError(f"two {what} called {twice!r}: rename one with `name`, or leave it out")


def _prove(loaded: LoadedModels, dtype: str, most: int | None) -> list[Proof]:
    proofs = []
    for backbone in loaded.backbones:
        by_artifact = {reward.artifact.name: reward for reward in backbone.rewards}
        for reward in by_artifact.values():
            proofs += prove_reward(reward, backbone.scorer, dtype, most)
    for policy in loaded.policies:
        proofs += prove_experts(policy.family, policy.runtime, dtype, most)
    return proofs
