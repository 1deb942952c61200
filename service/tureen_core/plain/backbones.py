"""Backbones whose tensors have other names than transformers reads: they are written again, once, into the cache."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tureen_core import base
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.form import Convert
from tureen_core.plain.options import PlainError

ConvertTensor = Callable[[str, Tensor], Mapping[str, Tensor]]
INDEX = "model.safetensors.index.json"


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


def write_backbone(checkpoint: Checkpoint, config: Mapping[str, Any], convert: ConvertTensor) -> Path:
    """Write a backbone into the cache, unless it is there already, and return its folder.

    Args:
        config: its ``config.json``.
        convert: returns the new tensors of one tensor, by name; none if it does not belong to the backbone.
    """
    identity = base.digest_weights(checkpoint.folder) + json.dumps(dict(config), sort_keys=True)
    target = base.CACHE / "plain" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    if (target / "config.json").is_file():
        return target

    def write(folder: Path) -> None:
        places: dict[str, str] = {}
        for number, path in enumerate(sorted(set(checkpoint.files.values())), 1):
            tensors: dict[str, Tensor] = {}
            with safe_open(path, framework="pt") as shard:
                for name in sorted(shard.keys()):
                    tensors |= {key: each.contiguous() for key, each in convert(name, shard.get_tensor(name)).items()}
            if tensors:
                file = f"model-{number:05}.safetensors"
                save_file(tensors, folder / file, metadata={"format": "pt"})
                places |= dict.fromkeys(tensors, file)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
        for path in checkpoint.folder.iterdir():
            if path.is_file() and path.suffix in {".json", ".jinja", ".model", ".txt"} and "index" not in path.name:
                shutil.copyfile(path, folder / path.name)
        (folder / "config.json").write_text(json.dumps(dict(config)))

    base.publish_folder(target, write)
    return target
