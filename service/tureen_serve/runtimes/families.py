"""Open the experts of policy families, and check them against their base and each other, before any model is loaded."""

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tureen.errors import Unprocessable
from tureen_core.artifact import Artifact, read_weights
from tureen_core.lora import Adapter
from tureen_core.preference import Normalize, normalise_weights
from tureen_core.reading import Reading
from tureen_core.soup import Stack, concatenate_adapters
from tureen_serve.runtimes.artifacts import Bases, LoadError, open_kind
from tureen_serve.runtimes.catalogue import Family
from tureen_serve.settings import FamilyEntry

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class OpenedFamily:
    """An opened family, the folder of its base, and its stacked experts. The runtime sets ``family.context`` later."""

    family: Family
    folder: Path
    stack: Stack


def open_family(entry: FamilyEntry, bases: Bases, dtype: str) -> OpenedFamily:
    """Open the experts of a policy family.

    Raises:
        LoadError: an artifact is not an expert for soups, the experts disagree, or a preset is invalid.
        ArtifactError: a file of an artifact is wrong.
        SoupError: the experts cannot be concatenated.
    """
    where = f"families.{entry.name}"
    experts = _experts(entry.experts, where)
    folder = _agreed([bases.locate_for(each, entry.base) for each in experts.values()], f"{where}.base")
    folder = folder or bases.locate(entry.base or "")
    steering = [each.manifest.steering for each in experts.values() if each.manifest.steering]
    semantics = entry.semantics or _agreed([each.semantics for each in steering], f"{where}.semantics") or "delta"
    normalize = entry.normalize or _agreed([each.normalize for each in steering], f"{where}.normalize") or "simplex"
    stack = concatenate_adapters([Adapter(name, read_weights(each)[0].modules) for name, each in experts.items()])
    if semantics == "factor" and stack.find_factor_obstacle():
        raise LoadError(f"{where}.semantics: {stack.find_factor_obstacle()}")
    renderer = _agreed([bases.make_verified_renderer(folder, each) for each in experts.values()], f"{where}: readings")
    presets = {
        name: _weights(each, experts, normalize, f"{where}.presets.{name}") for name, each in entry.presets.items()
    }
    family = Family(
        name=entry.name,
        base=folder.name,
        experts=experts,
        renderer=renderer or bases.make_renderer(folder, Reading()),
        context=0,
        presets=presets,
        default=_weights(entry.default, experts, normalize, f"{where}.default") if entry.default else {},
        semantics=semantics,
        normalize=normalize,
        factor_obstacle=stack.find_factor_obstacle(),
        fingerprint=_fingerprint(bases.compute_digest(folder), dtype, experts),
    )
    return OpenedFamily(family, folder, stack)


def _experts(paths: Sequence[Path], where: str) -> dict[str, Artifact]:
    experts: dict[str, Artifact] = {}
    for path in paths:
        artifact = open_kind(path, "expert")
        objective = artifact.manifest.objectives[0].name
        if artifact.manifest.steering is not None and artifact.manifest.steering.method != "soup":
            raise LoadError(
                f"{artifact.name} is steered by {artifact.manifest.steering.method}; a family needs steering by soup"
            )
        if objective in experts:
            raise LoadError(f"{where}: two experts for {objective!r}; leave one out")
        experts[objective] = artifact
    return experts


def _agreed(values: Iterable[T], where: str) -> T | None:
    """Return the value that all experts have, or None without experts."""
    different = list(dict.fromkeys(values))
    if len(different) > 1:
        raise LoadError(f"{where}: the experts disagree ({different[0]}, {different[1]})")
    return different[0] if different else None


def _weights(
    weights: Mapping[str, float], known: Mapping[str, Artifact], normalize: Normalize, where: str
) -> dict[str, float]:
    try:
        return normalise_weights(weights, known, normalize, where)
    except Unprocessable as error:
        raise LoadError(f"{error.param}: {error.message}") from error


def _fingerprint(base: str, dtype: str, experts: Mapping[str, Artifact]) -> str:
    """Hash base, dtype and experts to 16 hex digits. Equal texts under equal seeds need an equal fingerprint."""
    identity = [base, dtype, {name: artifact.fingerprint(dtype) for name, artifact in experts.items()}]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
