"""Check one model as the server's start would: verify it, load it and run all its probes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tureen_core.artifact import MANIFEST, Artifact, open_artifact, read_manifest
from tureen_core.base import CACHE
from tureen_core.plain.locate import locate_source
from tureen_serve.runtimes.load import UNUSABLE, LoadOptions, make_runtime, open_models, prove_models
from tureen_serve.runtimes.probes import Proof, prove_policy
from tureen_serve.runtimes.sources import LoadError
from tureen_serve.settings import FamilyEntry, RewardEntry

DEFAULTS = LoadOptions()


@dataclass(frozen=True)
class CheckedSource:
    """All probes of a model as this machine reads them. ``form`` is None for an artifact."""

    proofs: Sequence[Proof]
    runtime: str
    form: str | None


def check_artifact(folder: Path, options: LoadOptions = DEFAULTS) -> list[Proof]:
    """Verify one artifact, load it and run all its probes.

    Raises:
        LoadError: the artifact cannot be served.
    """
    return list(check_source(RewardEntry(path=folder), options).proofs)


def check_source(entry: RewardEntry, options: LoadOptions = DEFAULTS) -> CheckedSource:
    """Verify an artifact of any kind, or a plain reward model; load it and run all its probes.

    Raises:
        LoadError: it cannot be served.
    """
    try:
        runtime, description = make_runtime(options)
        folder = locate_source(entry.path, options.cache or CACHE, tried=entry.tried)
        kind = read_manifest(folder).kind if (folder / MANIFEST).exists() else "reward"
        artifact = None if kind == "reward" else open_artifact(folder)
        families = [] if artifact is None else [_make_entry(artifact)]
        loaded = open_models([] if families else [entry], families, options, runtime, description)
        try:
            plain = [each.artifact.plain for backbone in loaded.backbones for each in backbone.rewards]
            form = next((each.form for each in plain if each is not None), None)
            if artifact is None or artifact.manifest.steering is not None:
                return CheckedSource(prove_models(loaded, runtime.dtype, None), description, form)
            (whole,) = loaded.policies
            return CheckedSource(prove_policy(artifact, whole.family, whole.runtime, runtime.dtype), description, form)
        finally:
            loaded.close()
    except UNUSABLE as error:
        raise LoadError(str(error)) from error


def _make_entry(artifact: Artifact) -> FamilyEntry:
    """Make a family of one expert or policy. A policy that is not steered is the base of one."""
    kind, folder, steered = artifact.manifest.kind, artifact.folder, artifact.manifest.steering is not None
    own = "experts" if kind == "expert" else "policy" if steered else "base"
    return FamilyEntry.model_validate({"name": artifact.name, own: [folder] if own == "experts" else str(folder)})
