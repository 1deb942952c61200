"""Import a policy expert of others as an artifact; :mod:`tureen_core.experts` reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tureen_core.artifact import Artifact, Manifest
from tureen_core.base import CACHE, locate_base
from tureen_core.experts.import_expert import ExpertCard, import_expert
from tureen_core.experts.low_rank import RankChoice
from tureen_train.importing.licences import find_licences


@dataclass(frozen=True)
class ExpertRequest:
    """What the user says of an expert.

    Attributes:
        base: the folder of its base, or a packaged base.
        objective: what requests call its weight.
        family: its policy family; by default named like the base.
        name: the artifact's name; by default the objective.
        choice: the ranks, where it is approximated.
        licences: of its weights; by default those that the model cards name.
    """

    base: str
    objective: str
    family: str | None
    name: str | None
    choice: RankChoice
    licences: Sequence[str]


def import_expert_artifact(source: Path, out: Path, request: ExpertRequest, device: str) -> Artifact:
    """Write an expert of others as an artifact with a model card.

    Args:
        source: a PEFT adapter's folder, or a whole model's.
        out: an empty folder.
        device: where the models run.

    Raises:
        ValueError: the source cannot be an expert on this base, captures too little of it, or nobody names a licence.
        BaseError: the base is not on this machine.
    """
    base = locate_base(request.base, CACHE)
    card = ExpertCard(
        name=request.name or request.objective,
        objective=request.objective,
        family=request.family or base.name,
        base=request.base,
        licences=find_licences(request.licences, [source, base]),
    )
    try:
        artifact = import_expert(source, out, base, card, request.choice, device)
    except torch.OutOfMemoryError as error:
        raise ValueError(f"--device: {device} has too little memory to import {source}") from error
    (out / "README.md").write_text(_write_card(artifact.manifest, source.resolve().name), encoding="utf-8")
    return artifact


def _write_card(manifest: Manifest, source: str) -> str:
    """Write the model card: kind, base, source, what was captured, licences."""
    base = Path(manifest.base.model).name if manifest.base else ""
    figures = manifest.training.metrics["import"]
    lines = [
        f"# {manifest.name}",
        "",
        f"A Tureen expert for `{manifest.objectives[0].name}` on `{base}`, imported from `{source}`.",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {key} | {value:.4g} |" for key, value in figures.items()),
        "",
        *(f"Licence of the weights: {licence}" for licence in manifest.training.licences),
    ]
    return "\n".join(lines) + "\n"
