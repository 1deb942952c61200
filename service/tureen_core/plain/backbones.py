"""Backbones whose tensors have other names than transformers reads: they are written again, once, into the cache."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tureen_core import base
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Convert
from tureen_core.plain.options import PlainError

ConvertTensor = Callable[[str, Tensor], Mapping[str, Tensor]]
INDEX = "model.safetensors.index.json"
BESIDE = {".json", ".jinja", ".model", ".txt"}
FILE_BYTES = 2 * 2**30


def find_own_prefix(checkpoint: Checkpoint) -> str:
    """Find the prefix under which transformers' causal model of this type keeps its backbone, such as ``model.``.

    Raises:
        PlainError: transformers has no such type.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    kind = checkpoint.config.get("model_type")
    if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] not in MODEL_MAPPING:
        raise PlainError(f"{checkpoint.folder.name}: transformers has no model type {kind!r} (config.json)")
    return f"{MODEL_MAPPING[CONFIG_MAPPING[kind]].base_model_prefix}."


def plan_renaming(checkpoint: Checkpoint, root: str) -> Convert | None:
    """Plan to write a backbone whose names begin with ``root`` under transformers' own prefix; None if they have it.

    Tensors without the root are left out.

    Raises:
        PlainError: transformers has no such model type.
    """
    own = find_own_prefix(checkpoint)
    if root == own:
        return None

    def rename(name: str, tensor: Tensor) -> Mapping[str, Tensor]:
        return {own + name.removeprefix(root): tensor} if name.startswith(root) else {}

    return plan_conversion(checkpoint, checkpoint.config, rename)


def plan_conversion(checkpoint: Checkpoint, config: Mapping[str, Any], convert: ConvertTensor) -> Convert:
    """Plan :func:`write_backbone`. It runs when the plan is first called."""
    return cache(partial(write_backbone, checkpoint, config, convert))


def write_backbone(
    checkpoint: Checkpoint,
    config: Mapping[str, Any],
    convert: ConvertTensor,
    origin: str = "",
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Write a backbone into the cache, unless it is there already, and return its folder.

    Args:
        config: its ``config.json``.
        convert: returns the new tensors of one tensor, by name; none if it does not belong to the backbone.
        origin: what else the new tensors depend on.
        check: is given the written folder before it is used, and raises PlainError if something is wrong.

    Raises:
        PlainError: the disk is full, or as ``convert`` and ``check``.
    """
    identity = base.digest_weights(checkpoint.folder) + json.dumps(dict(config), sort_keys=True) + origin
    identity += digest_beside(checkpoint.folder)
    target = checkpoint.cache / "plain" / hashlib.sha256(identity.encode()).hexdigest()[:32] / checkpoint.folder.name

    def write(folder: Path) -> None:
        places: dict[str, str] = {}
        for number, tensors in enumerate(_convert_tensors(checkpoint, convert), 1):
            file = f"model-{number:05}.safetensors"
            save_file(tensors, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(tensors, file)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
        copy_beside(checkpoint.folder, folder)
        (folder / "config.json").write_text(json.dumps(dict(config)))
        if check is not None:
            check(folder)

    if not (target / "config.json").is_file():
        try:
            base.publish_folder(target, write)
        except (OSError, SafetensorError) as error:
            name = checkpoint.folder.name
            raise PlainError(
                f"{name}: its converted weights cannot be written to {target}: {error}; set `cache` to another disk"
            ) from error
    return target


def _convert_tensors(checkpoint: Checkpoint, convert: ConvertTensor) -> Iterator[dict[str, Tensor]]:
    """Convert all tensors, and give them in parts for the files."""
    part: dict[str, Tensor] = {}
    size = 0
    for path in sorted(set(checkpoint.files.values())):
        with safe_open(path, framework="pt") as shard:
            for name in sorted(shard.keys()):
                found = {key: each.contiguous() for key, each in convert(name, shard.get_tensor(name)).items()}
                part, size = part | found, size + sum(each.nbytes for each in found.values())
                if size >= FILE_BYTES:
                    yield part
                    part, size = {}, 0
    if part:
        yield part


def list_beside(folder: Path) -> list[Path]:
    """List the files beside the weights that a copy has too, without ``config.json``."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in BESIDE and "index" not in path.name and path.name != "config.json"
    ]


def copy_beside(folder: Path, copy: Path) -> None:
    """Copy the tokenizer's and other files beside the weights."""
    for path in list_beside(folder):
        shutil.copyfile(path, copy / path.name)


def digest_beside(folder: Path) -> str:
    """Compute the digest of the files that :func:`copy_beside` copies."""
    digest = hashlib.sha256()
    for path in list_beside(folder):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()} ".encode())
    return digest.hexdigest()
