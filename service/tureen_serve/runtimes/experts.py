"""Open the experts of a policy family: artifacts, and folders of others, which are imported first."""

import gc
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tureen_core.artifact import MANIFEST, Artifact, read_weights
from tureen_core.lora import Adapter
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.sources import LoadError, open_kind
from tureen_serve.settings import ExpertEntry, FamilyEntry


@dataclass(frozen=True)
class OpenedExpert:
    """An expert's artifact and weights. ``imported`` says that the artifact's folder is one of others."""

    artifact: Artifact
    adapter: Adapter
    imported: bool = False


@dataclass(frozen=True)
class OpenedExperts:
    """The experts of a family by name, and the folder of their base."""

    folder: Path
    named: Mapping[str, OpenedExpert]


def open_experts(entry: FamilyEntry, bases: Bases, device: str) -> OpenedExperts:
    """Open the experts of a family. Those of others stand on the family's base, or on that of its artifacts.

    Args:
        device: where experts of others are imported; ``auto`` is the first GPU, or the CPU if there is none.

    Raises:
        LoadError: a folder is not an expert, two experts have one name or different bases, or no base is
            named.
        ArtifactError: a file of an artifact is wrong.
        SoupError: a folder of others cannot be an expert on this base.
    """
    where = f"families.{entry.name}"
    sealed = {each.path: _open_sealed(each, where) for each in entry.experts if not _is_plain(each)}
    models = [each.artifact.manifest.base.model for each in sealed.values() if each.artifact.manifest.base]
    folders = list(dict.fromkeys(bases.locate_for(each.artifact, entry.base) for each in sealed.values()))
    if len(folders) > 1:
        raise LoadError(f"{where}.base: the experts disagree ({folders[0]}, {folders[1]})")
    model = entry.base or next(iter(models), None)
    if model is None:
        raise LoadError(f"{where}.base: name the base that the experts stand on")
    folder = folders[0] if folders else bases.find_shared(bases.locate(model))
    named: dict[str, OpenedExpert] = {}
    for each in entry.experts:
        opened = sealed.get(each.path) or _import_plain(each, entry.name, model, folder, bases, device)
        name = each.name or opened.artifact.manifest.objectives[0].name
        if name in named:
            raise LoadError(f"{where}: two experts for {name!r}; rename one with `name`, or leave it out")
        named[name] = opened
    return OpenedExperts(folder, named)


def _is_plain(entry: ExpertEntry) -> bool:
    return entry.name is not None and not (entry.path / MANIFEST).is_file()


def _open_sealed(entry: ExpertEntry, where: str) -> OpenedExpert:
    if not (entry.path / MANIFEST).is_file():
        raise LoadError(
            f"{where}.experts: {entry.path} has no {MANIFEST}; if others trained it, give it a `name`, as in "
            "experts: {NAME: FOLDER}"
        )
    artifact = open_kind(entry.path, "expert")
    if (entry.rank, entry.energy, entry.accept_energy) != (None, None, None):
        raise LoadError(f"{where}.experts: {artifact.name} is an artifact, whose rank was chosen when it was made")
    return OpenedExpert(artifact, read_weights(artifact)[0])


def _import_plain(entry: ExpertEntry, family: str, model: str, folder: Path, bases: Bases, device: str) -> OpenedExpert:
    """Import a folder of others as an expert, in a temporary folder that is deleted again."""
    # these import PEFT, which takes a second and is needed for such folders only
    from tureen_core.experts.import_expert import ExpertCard, import_expert
    from tureen_core.experts.low_rank import RankChoice

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    name = entry.name or ""
    card = ExpertCard(name, name, family, model, bases.compute_digest(folder))
    choice = RankChoice(entry.rank, entry.energy, entry.accept_energy)
    with tempfile.TemporaryDirectory(prefix="tureen-expert-") as scratch:
        try:
            artifact = import_expert(entry.path, Path(scratch) / name, folder, card, choice, device)
        except torch.OutOfMemoryError as error:
            raise LoadError(
                f"{name}: {device} has too little memory to import {entry.path}; run tureen-train import elsewhere"
            ) from error
        finally:
            gc.collect()  # models refer to themselves
            if device.startswith("cuda"):
                torch.cuda.empty_cache()
        adapter = read_weights(artifact)[0]
    return OpenedExpert(replace(artifact, folder=entry.path), adapter, imported=True)
