"""Damaged copies of artifacts, each sealed anew, and what the proof of serving says of them."""

import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tureen_core.artifact import HEAD, open_artifact, seal_artifact
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.runtimes.probes import Proof, prove_family, prove_reward
from tureen_serve.settings import FamilyEntry, RewardEntry

WEIGHTS = "adapter_model.safetensors"
HONEST = "none"
Tensors = dict[str, torch.Tensor]


def damage_artifact(folder: Path, to: Path, neighbours: Sequence[Path]) -> dict[str, list[Path]]:
    """Damaged copies of one artifact under ``to``, by the kind of damage; the probes stay as they are.

    Args:
        neighbours: other artifacts on the same base; each gives one copy its adapter.
    """
    whole = load_file(folder / WEIGHTS)
    head = sorted(name for name in whole if HEAD in name)
    changed: dict[str, list[Tensors]] = {
        HONEST: [whole],
        "bare base": [{name: each if name in head else torch.zeros_like(each) for name, each in whole.items()}],
        "zeroed lora_B": [{name: torch.zeros_like(each) if "lora_B" in name else each for name, each in whole.items()}],
        "neighbour's adapter": [
            {name: each if name in head else other[name] for name, each in whole.items()}
            for other in map(load_file, (each / WEIGHTS for each in neighbours))
        ],
    }
    if head:
        order = torch.randperm(whole[head[0]].shape[1], generator=torch.Generator().manual_seed(0))
        changed["permuted head"] = [whole | {name: whole[name][:, order] for name in head}]
    manifest = open_artifact(folder).manifest
    copies: dict[str, list[Path]] = defaultdict(list)
    for kind, several in changed.items():
        for tensors in several:
            copy = to / f"{manifest.name}{sum(len(each) for each in copies.values())}"
            shutil.copytree(folder, copy)
            save_file({name: each.contiguous() for name, each in tensors.items()}, copy / WEIGHTS, {"format": "pt"})
            named: dict[str, object] = {"name": copy.name}
            if manifest.kind == "expert":  # a family's experts are told apart by their objectives
                named["objectives"] = [manifest.objectives[0].model_copy(update=named)]
            seal_artifact(copy, manifest.model_copy(update=named))
            copies[kind].append(copy)
    return dict(copies)


def prove_copies(copies: Sequence[Path], dtype: str, most: int | None = None) -> dict[str, list[Proof]]:
    """The proofs of several rewards or experts on one base, loaded once, by the folder's name."""
    options = LoadOptions("transformers", dtype, "cpu")
    if open_artifact(copies[0]).manifest.kind == "reward":
        loaded = load_models([RewardEntry(path=copy, name=copy.name) for copy in copies], [], options, probes=0)
        rewards = {reward.artifact.name: reward for reward in loaded.backbones[0].rewards}
        found = {name: prove_reward(each, loaded.backbones[0].scorer, dtype, most) for name, each in rewards.items()}
    else:
        loaded = load_models([], [FamilyEntry(name="all", experts=list(copies))], options, probes=0)
        (policy,) = loaded.policies
        proofs = prove_family(policy.family, policy.runtime, dtype, most)
        found = {copy.name: [proof for proof in proofs if proof.artifact == copy.name] for copy in copies}
    loaded.close()
    return found
