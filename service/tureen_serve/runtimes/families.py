"""Open the experts of policy families, and check them against their base and each other, before any model is loaded."""

from collections.abc import Hashable, Iterable
from typing import TypeVar

from tureen_core.lora import Adapter
from tureen_core.reading import Reading
from tureen_core.soup import concatenate_adapters
from tureen_core.steering import SoupSteering
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.catalogue import Family
from tureen_serve.runtimes.experts import open_experts
from tureen_serve.runtimes.opened_families import (
    OpenedFamily,
    check_stored_weights,
    compute_family_fingerprint,
    keep_prompt_reading,
)
from tureen_serve.runtimes.sources import LoadError
from tureen_serve.runtimes.steered_policies import open_steered_policy
from tureen_serve.settings import FamilyEntry

T = TypeVar("T", bound=Hashable)


def open_family(entry: FamilyEntry, bases: Bases, dtype: str, device: str = "cpu") -> OpenedFamily:
    """Open a policy family: its experts, or the policy that is steered in its prompt.

    Args:
        device: where experts of others are imported; see :func:`open_experts`.

    Raises:
        LoadError: a folder is not an expert, the experts disagree, or a preset is invalid.
        ArtifactError: a file of an artifact is wrong.
        SoupError: the experts cannot be concatenated, or a folder of others cannot be an expert on this base.
    """
    if entry.policy is not None or entry.steering is not None:
        return open_steered_policy(entry, bases, dtype)
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
    reading = _agreed([keep_prompt_reading(each.reading) for each in renderers], f"{where}: readings")
    presets = {
        name: check_stored_weights(each, experts, normalize, f"{where}.presets.{name}")
        for name, each in entry.presets.items()
    }
    family = Family(
        name=entry.name,
        base=folder.name,
        experts=experts,
        renderer=bases.make_renderer(folder, reading or Reading()),
        context=0,
        presets=presets,
        default=check_stored_weights(entry.default, experts, normalize, f"{where}.default") if entry.default else {},
        semantics=semantics,
        normalize=normalize,
        factor_obstacle=stack.find_factor_obstacle(),
        fingerprint=compute_family_fingerprint(bases.compute_digest(folder), dtype, experts),
    )
    return OpenedFamily(family, folder, stack)


def _agreed(values: Iterable[T], where: str) -> T | None:
    """Return the value that all experts have, or None without experts."""
    different = list(dict.fromkeys(values))
    if len(different) > 1:
        raise LoadError(f"{where}: the experts disagree ({different[0]}, {different[1]})")
    return different[0] if different else None
