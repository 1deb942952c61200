"""Merge experts of one base into one LoRA or into a whole checkpoint.

``delta`` and ``factor`` are sums in rank space, so a LoRA holds them exactly. The other rules prune or choose single
values, which has full rank: a checkpoint holds that exactly, and a LoRA approximates it with a captured energy that is
told and bounded.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tureen.records.schema import BadOption
from tureen_core.adapter_files import read_adapter, write_adapter
from tureen_core.artifact import MANIFEST, Manifest, open_artifact
from tureen_core.base import digest_weights, locate_base
from tureen_core.checkpoint_merge import add_deltas
from tureen_core.experts.low_rank import LowRankTerm, RankChoice, approximate_matrix
from tureen_core.lora import Adapter, SoupError
from tureen_core.peft_config import read_config
from tureen_core.soup import Stack, compute_delta, concatenate_adapters, merge_adapter
from tureen_train.merging.rules import RULES, Rule

log = logging.getLogger("tureen.train")
Compute = Callable[[str], Tensor]


@dataclass(frozen=True)
class MergePlan:
    """How experts are merged.

    Attributes:
        weights: by the experts' names; they need not add up to 1 and may be negative.
        rule: see :mod:`.rules`.
        density: the share of values that pruning keeps.
        seed: for random pruning.
        choice: the ranks, where a LoRA approximates the result.
        dtype: of the written weights; by default float32 for a LoRA and the base's own for a checkpoint.
    """

    weights: Mapping[str, float]
    rule: Rule = "delta"
    density: float = 0.5
    seed: int = 0
    choice: RankChoice = RankChoice()
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise BadOption(f"--density: must be above 0 and at most 1, is {self.density:g}")
        if not any(self.weights.values()):
            raise BadOption("--weights: all are 0, which is the base itself; give one expert a weight")


@dataclass(frozen=True)
class Experts:
    """Experts that are read.

    Attributes:
        adapters: the experts, in the order of their names on the command line.
        base: the base's name or folder.
        licences: those of the artifacts among them.
    """

    adapters: Sequence[Adapter]
    base: str
    licences: Sequence[str]


def read_experts(folders: Mapping[str, Path], base: str | None) -> Experts:
    """Read experts by name: artifacts, or PEFT folders of LoRAs.

    Args:
        base: the base, where the artifacts do not name it, or it lies elsewhere now.

    Raises:
        SoupError: a folder holds no LoRA, or the experts have different bases.
        BadOption: nothing names the base.
        ArtifactError: an artifact does not verify.
        BaseError: the base is not on this machine.
    """
    manifests = {name: _read_manifest(folder, name) for name, folder in folders.items()}
    named = {each.base.model: None for each in manifests.values() if each and each.base}
    chosen = base or next(iter(named), None) or _named_by_peft(folders)
    if chosen is None:
        raise BadOption("--base: no expert's folder names its base; give it")
    digest = digest_weights(locate_base(chosen))
    for name, manifest in manifests.items():
        if manifest and manifest.base and manifest.base.digest != digest:
            raise SoupError(f"{name}: it was trained on other weights than those of {chosen}: the digests differ")
    adapters = [read_adapter(folder, name)[0] for name, folder in folders.items()]
    licences = [licence for each in manifests.values() if each for licence in each.training.licences]
    return Experts(adapters, chosen, list(dict.fromkeys(licences)))


def _read_manifest(folder: Path, name: str) -> Manifest | None:
    """Read an artifact's manifest after verifying it; None for another folder."""
    if not (folder / MANIFEST).is_file():
        return None
    manifest = open_artifact(folder).manifest
    if manifest.kind != "expert":
        raise SoupError(f"{name}: {folder} is a {manifest.kind}, and only experts are merged")
    return manifest


def _named_by_peft(folders: Mapping[str, Path]) -> str | None:
    names = [read_config(folder, name, None).get("base_model_name_or_path") for name, folder in folders.items()]
    return next((str(each) for each in names if each), None)


def write_lora(experts: Experts, plan: MergePlan, out: Path) -> Mapping[str, float]:
    """Write the merged experts as one LoRA in PEFT's format.

    Returns:
        ``rank``, the largest of a module, and ``energy``, the captured share of the merged difference: 1 where exact.

    Raises:
        SoupError: the rule does not fit these experts, or too little energy is captured.
    """
    stack = concatenate_adapters(experts.adapters)
    row = stack.order_weights(plan.weights)
    if plan.rule in ("delta", "factor"):
        adapter = merge_adapter(stack, plan.weights, "merged", plan.rule)
        figures = {"energy": 1.0}
    else:
        adapter, figures = _approximate(stack, _merger(stack, row, plan), plan.choice)
    write_adapter(adapter, out, experts.base, plan.dtype or torch.float32)
    return {"rank": max(pair.rank for pair in adapter.modules.values()), **figures}


def write_checkpoint(experts: Experts, plan: MergePlan, out: Path) -> None:
    """Write the base with the merged experts as a whole checkpoint.

    Raises:
        SoupError: the rule does not fit these experts, or the base does not.
    """
    stack = concatenate_adapters(experts.adapters)
    row = stack.order_weights(plan.weights)
    if plan.rule == "factor":
        stack.require_factors()
    add_deltas(locate_base(experts.base), _shapes(stack), _merger(stack, row, plan), out, plan.dtype)


def _shapes(stack: Stack) -> dict[str, tuple[int, int]]:
    return {path: (stacked.b.shape[0], stacked.a.shape[1]) for path, stacked in stack.modules.items()}


def _merger(stack: Stack, row: Sequence[float], plan: MergePlan) -> Compute:
    """Make the function that computes a module's merged difference ``[out, in]`` in float32."""

    def compute(path: str) -> Tensor:
        stacked = stack.modules[path]
        if plan.rule in ("delta", "factor"):
            return compute_delta(stacked, row, "factor" if plan.rule == "factor" else "delta")
        present = [place for place, rank in enumerate(stacked.ranks) if rank and row[place]]
        if not present:
            return torch.zeros(stacked.b.shape[0], stacked.a.shape[1])
        alone = [[float(place == other) for other in range(len(row))] for place in present]
        deltas = torch.stack([compute_delta(stacked, each) for each in alone])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed_of(path, plan.seed))
            return RULES[plan.rule](deltas, torch.tensor([row[place] for place in present]), plan.density)

    return compute


def _seed_of(path: str, seed: int) -> int:
    """A module's own seed, so that its pruning does not depend on the order of the modules."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{path}".encode()).digest()[:8], "big") >> 1


def _approximate(stack: Stack, compute: Compute, choice: RankChoice) -> tuple[Adapter, dict[str, float]]:
    found = {path: approximate_matrix(compute(path), choice) for path in stack.modules}
    terms: dict[str, LowRankTerm] = {path: term for path, term in found.items() if term}
    if not terms:
        raise SoupError("the merged difference is zero everywhere: raise --density, or give other --weights")
    share = sum(term.captured for term in terms.values()) / sum(term.energy for term in terms.values())
    if not choice.accepts(share):
        raise SoupError(
            f"a LoRA of these ranks captures {share:.4g} of the merged difference, and {choice.least:.4g} is asked: "
            "raise --rank or lower --accept-energy; --to checkpoint holds all of it"
        )
    return Adapter("merged", {path: term.pair for path, term in terms.items()}), {"energy": share}
