"""Open the experts of policy families, and check them against their base and each other, before any model is loaded."""

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tureen.errors import Unprocessable
from tureen_core.artifact import Artifact
from tureen_core.lora import Adapter
from tureen_core.preference import Normalize, normalise_weights
from tureen_core.reading import Reading
from tureen_core.soup import Stack, concatenate_adapters
from tureen_core.steering import SoupSteering
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.catalogue import Family
from tureen_serve.runtimes.experts import open_experts
from tureen_serve.runtimes.sources import LoadError
from tureen_serve.settings import FamilyEntry

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class OpenedFamily:
    """An opened family, the folder of its base, and its stacked experts. The runtime sets ``family.context`` later."""

    family: Family
    folder: Path
    stack: Stack


def open_family(entry: FamilyEntry, bases: Bases, dtype: str, device: str = "cpu") -> OpenedFamily:
    """Open the experts of a policy family.

    Args:
        device: where experts of others are imported; see :func:`open_experts`.

    Raises:
        LoadError: a folder is not an expert, the experts disagree, or a preset is invalid.
        ArtifactError: a file of an artifact is wrong.
        SoupError: the experts cannot be concatenated, or a folder of others cannot be an expert on this base.
    """
    where = f"families.{entry.name}"
    opened = open_experts(entry, bases, device)
    folder, experts = opened.folder, {name: each.artifact for name, each in opened.named.items()}
    made = [each.artifact.manifest.steering for each in opened.named.values() if not each.imported]
    steering = [each for each in made if isinstance(each, SoupSteering)]
    semantics = entry.semantics or _agreed([each.semantics for each in steering], f"{where}.semantics") or "delta"
    normalize = entry.normalize or _agreed([each.normalize for each in steering], f"{where}.normalize") or "simplex"
    stack = concatenate_adapters([Adapter(name, each.adapter.modules) for name, each in opened.named.items()])
    if semantics == "factor" and stack.find_factor_obstacle():
        raise LoadError(f"{where}.semantics: {stack.find_factor_obstacle()}")
    renderers = [bases.make_verified_renderer(folder, each) for each in experts.values()]
    reading = _agreed([_read_prompts(each.reading) for each in renderers], f"{where}: readings")
    presets = {
        name: _weights(each, experts, normalize, f"{where}.presets.{name}") for name, each in entry.presets.items()
    }
    family = Family(
        name=entry.name,
        base=folder.name,
        experts=experts,
        renderer=bases.make_renderer(folder, reading or Reading()),
        context=0,
        presets=presets,
        default=_weights(entry.default, experts, normalize, f"{where}.default") if entry.default else {},
        semantics=semantics,
        normalize=normalize,
        factor_obstacle=stack.find_factor_obstacle(),
        fingerprint=_fingerprint(bases.compute_digest(folder), dtype, experts),
    )
    return OpenedFamily(family, folder, stack)


def _read_prompts(reading: Reading) -> Reading:
    """Return a reading with only the fields that change a prompt, which all experts of a family must share."""
    return Reading(**reading.model_dump(include={"template", "bos", "eos", "control_marks"}))


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
