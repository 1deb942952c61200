"""Check the tensors of an artifact: its score head, and a full checkpoint against its own architecture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tureen_core.heads import LinearHead
from tureen_core.manifest import Manifest
from tureen_core.peft_config import CONFIG as ADAPTER

HEAD = "score"


class ArtifactError(ValueError):
    """An artifact cannot be trusted or used. The message names the file, tensor or field, and the reason."""


def check_head(manifest: Manifest, extras: Mapping[str, Tensor]) -> Tensor:
    """Find the score head ``[K, H]`` among ``extras``, in float32.

    A missing head is an error, since a library would create a random one in its place.

    Raises:
        ArtifactError: the head is missing, has the wrong shape or a value that is not finite, or another tensor is
            beside it.
    """
    strange = set(extras) - {f"{HEAD}.weight"}
    if strange:
        raise ArtifactError(f"{manifest.name}: unexpected tensor {sorted(strange)[0]}")
    if not extras:
        raise ArtifactError(f"{manifest.name}: the score head ({HEAD}.weight) is missing; export the artifact again")
    head = extras[f"{HEAD}.weight"].float()
    rows = manifest.rows
    if head.ndim != 2 or head.shape[0] < rows or (manifest.gated and head.shape[0] != rows):
        raise ArtifactError(f"{manifest.name}: the head is {list(head.shape)} and the objectives need {rows} rows")
    if not bool(torch.isfinite(head).all()):
        raise ArtifactError(f"{manifest.name}: the score head holds a value that is not finite")
    return head


def check_full_checkpoint(folder: Path, manifest: Manifest) -> Tensor | None:
    """Check a full checkpoint against the architecture that its ``config.json`` names, without loading its weights.

    A reward model with a linear head must open with ``AutoModelForSequenceClassification`` and keep its head in
    ``score.weight``. One with ``head.safetensors`` must open with ``AutoModel``, and one whose own class computes the
    rewards with ``AutoModelForSequenceClassification``. Any other model must open with ``AutoModelForCausalLM``.

    Returns:
        A linear head ``[K, H]`` in float32; None for another model.

    Raises:
        ArtifactError: the configuration cannot be opened; a tensor is missing, unexpected or of another shape; or the
            head cannot be used.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    name, reward = manifest.name, manifest.kind == "reward"
    linear = reward and manifest.head.kind == "linear"
    if (folder / ADAPTER).exists():  # transformers would try to fetch the base that it names
        raise ArtifactError(f"{name}: {ADAPTER} does not belong beside full weights; say weights: lora")
    opener: Any = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    if reward and manifest.head.kind == "layers":
        opener = AutoModel
    try:
        heads = read_head_tensors(folder)
        _, found = opener.from_pretrained(
            folder,
            device_map="meta",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{name}: not a checkpoint that {opener.__name__} opens: {error}") from error
    head = check_head(manifest, heads) if linear else None
    for fault in ("missing", "unexpected", "mismatched"):
        if keys := found[f"{fault}_keys"]:
            raise ArtifactError(f"{name}: {fault} tensor {min(map(str, keys))}")
    return head


def read_head_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of a full checkpoint's score head, by name, from all of its files."""
    heads: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            heads |= {key: shard.get_tensor(key) for key in shard.keys() if key.startswith(f"{HEAD}.")}  # noqa: SIM118
    return heads


def make_linear_head(weight: Tensor, rows: int) -> LinearHead:
    """Make a head of the first ``rows`` rows of a weight ``[K', H]``.

    The others are dropped, so that heads with the same objectives can be blended.
    """
    head = LinearHead(weight.shape[1], rows).requires_grad_(False)
    head.weight.copy_(weight[:rows])
    return head
