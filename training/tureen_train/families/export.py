"""Write a trained family as one folder that ``tureen-serve --config FOLDER/server.yaml`` serves."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tureen_core.adapter_files import read_adapter
from tureen_core.artifact import Artifact, open_artifact
from tureen_core.lora import SoupError
from tureen_core.soup import Stack, concatenate_adapters
from tureen_train.config import FamilyRun

SERVER = "server.yaml"


def stack_experts(artifacts: Sequence[Artifact]) -> Stack:
    """Check that experts can be souped, and stack them.

    Raises:
        SoupError: two have different bases, targets or names, or an adapter cannot be read.
    """
    first, *others = artifacts
    for other in others:
        ours, theirs = first.manifest.base, other.manifest.base
        if not (ours and theirs and ours.digest == theirs.digest):
            raise SoupError(f"{first.name} and {other.name} have different bases, so they cannot be souped")
    stack = concatenate_adapters([read_adapter(each.folder, each.name)[0] for each in artifacts])
    for path, stacked in stack.modules.items():
        if not all(stacked.ranks):
            raise SoupError(f"{path} is adapted by some experts only: train all with the same targets and layers")
    return stack


def export_family(family: FamilyRun, experts: Mapping[str, Path], out: Path) -> None:
    """Write the experts, their rewards and the server's configuration into ``out``, in place of an earlier export.

    Raises:
        ArtifactError: an artifact does not verify.
    """
    scratch = out.with_name(f".{out.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    licences: dict[str, None] = {}
    for kind, folders in (("experts", experts), ("rewards", _list_rewards(family))):
        for name, folder in folders.items():
            licences |= dict.fromkeys(open_artifact(folder).manifest.training.licences)
            shutil.copytree(folder, scratch / kind / name)
    (scratch / SERVER).write_text(yaml.safe_dump(_configure(family), sort_keys=False), encoding="utf-8")
    (scratch / "README.md").write_text(_write_card(family, list(licences)), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    scratch.replace(out)


def _list_rewards(family: FamilyRun) -> dict[str, Path]:
    return {name: Path(each.reward.path) for name, each in family.objectives.items()}


def _configure(family: FamilyRun) -> dict[str, Any]:
    """The server's configuration; its paths start at its own folder."""
    return {
        "rewards": [{"path": f"rewards/{name}"} for name in family.objectives],
        "families": [
            {
                "name": family.name,
                "experts": [f"experts/{name}" for name in family.objectives],
                "presets": family.presets,
            }
        ],
    }


def _write_card(family: FamilyRun, licences: Sequence[str]) -> str:
    lines = [
        f"# {family.name}",
        "",
        f"A Tureen policy family with the experts {', '.join(f'`{name}`' for name in family.objectives)}.",
        "",
        f"    tureen-serve --config {SERVER}",
        "",
        *(f"Licence of the training data: {licence}" for licence in licences or ("not stated",)),
    ]
    return "\n".join(lines).rstrip() + "\n"
