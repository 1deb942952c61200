"""From artifacts to runtimes, each base loaded once, and the proof that what is loaded serves what was trained.

:data:`RUNTIMES` is the table of runtimes; each is imported when it is asked for.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tureen_core.artifact import ArtifactError, open_artifact
from tureen_core.base import CACHE, BaseError
from tureen_core.soup import SoupError
from tureen_serve.runtimes.catalogue import Backbone, Loaded, Policy
from tureen_serve.runtimes.contract import Limits
from tureen_serve.runtimes.opening import Bases, LoadError, RewardPart, open_family, open_reward
from tureen_serve.runtimes.probes import Proof, prove_experts, prove_reward
from tureen_serve.settings import FamilyEntry, RewardEntry

__all__ = ["LoadError", "Options", "Proof", "check", "load"]

RUNTIMES = {"transformers": ("tureen_serve.runtimes.transformers_models", "TransformersRuntime")}
DEFAULT = "transformers"
PROBES_AT_START = 1


@dataclass(frozen=True)
class Options:
    """How to load. ``cache`` is where packaged bases are converted to."""

    runtime: str = "auto"
    dtype: str = "auto"
    device: str = "auto"
    cache: Path | None = None
    limits: Limits = Limits()


def load(
    rewards: Sequence[RewardEntry],
    families: Sequence[FamilyEntry],
    options: Options = Options(),
    probes: int | None = PROBES_AT_START,
) -> Loaded:
    """Open, verify and load artifacts, and run the first ``probes`` of each again (None: all).

    A probe that differs is not an error but the ``failure`` of what is returned.

    Raises:
        LoadError: an artifact, a base, a template, a name or a preset is wrong; the message says which.
    """
    try:
        runtime = _runtime(options)
        loaded = _load(rewards, families, options, runtime)
        failed = [str(proof) for proof in _prove(loaded, runtime.dtype, probes) if not proof.holds]
    except (ArtifactError, BaseError, SoupError) as error:
        raise LoadError(str(error)) from error
    failure = f"{failed[0]} ({len(failed)} such differences)" if failed else None
    return replace(loaded, failure=failure)


def check(folder: Path, options: Options = Options()) -> list[Proof]:
    """Verify one artifact, load it and run all its probes.

    Raises:
        LoadError: it cannot be served at all.
    """
    try:
        runtime = _runtime(options)
        artifact = open_artifact(folder)
        if artifact.manifest.kind == "reward":
            loaded = _load([RewardEntry(path=folder)], [], options, runtime)
        else:
            loaded = _load([], [FamilyEntry(name=artifact.name, experts=[folder])], options, runtime)
        return _prove(loaded, runtime.dtype, None)
    except (ArtifactError, BaseError, SoupError) as error:
        raise LoadError(str(error)) from error


def _runtime(options: Options) -> Any:
    name = DEFAULT if options.runtime == "auto" else options.runtime
    if name not in RUNTIMES:
        raise LoadError(f"runtime: {name!r} is not part of this version; there is {', '.join(RUNTIMES)}")
    module, runtime = RUNTIMES[name]
    return getattr(importlib.import_module(module), runtime)(options.dtype, options.device, options.limits)


def _load(rewards: Sequence[RewardEntry], families: Sequence[FamilyEntry], options: Options, runtime: Any) -> Loaded:
    bases = Bases(options.cache or CACHE)
    models = [open_reward(entry, bases, runtime.dtype) for entry in rewards]
    policies = [open_family(entry, bases, runtime.dtype) for entry in families]
    _named_once(models)
    full = [part for part in models if part.artifact.manifest.weights == "full"]
    adapters = [part for part in models if part not in full]
    backbones = [Backbone(each.artifact.name, runtime.checkpoint(each.artifact), each.rewards) for each in full]
    served: list[Policy] = []
    for folder in dict.fromkeys([part.folder for part in adapters] + [part.folder for part in policies]):
        here = [part for part in adapters if part.folder == folder]
        above = [part for part in policies if part.folder == folder]
        scorer, steppers = runtime.base(
            folder, bases.tokenizer(folder), [part.artifact for part in here], [part.stack for part in above]
        )
        if here:
            backbones.append(Backbone(folder.name, scorer, tuple(reward for part in here for reward in part.rewards)))
        for part, stepper in zip(above, steppers, strict=True):
            served.append(Policy(replace(part.family, context=stepper.context), stepper))
    why = "the default" if options.runtime == "auto" else "as configured"
    return Loaded(f"{DEFAULT} ({why})", tuple(backbones), tuple(served))


def _named_once(parts: Sequence[RewardPart]) -> None:
    for names, what in (
        ([part.artifact.name for part in parts], "reward artifacts are"),
        ([reward.name for part in parts for reward in part.rewards], "rewards are"),
    ):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise LoadError(f"two {what} called {twice!r}: rename one with `name`, or leave it out")


def _prove(loaded: Loaded, dtype: str, most: int | None) -> list[Proof]:
    proofs = []
    for backbone in loaded.backbones:
        by_artifact = {reward.artifact.name: reward for reward in backbone.rewards}
        for reward in by_artifact.values():
            proofs += prove_reward(reward, backbone.scorer, dtype, most)
    for policy in loaded.policies:
        proofs += prove_experts(policy.family, policy.stepper, dtype, most)
    return proofs
