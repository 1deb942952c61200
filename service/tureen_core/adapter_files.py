"""LoRA adapters on disk: read PEFT folders strictly, and write folders that PEFT and vLLM open."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tureen_core.lora import Adapter, LoraPair, SoupError
from tureen_core.peft_config import find_rank, find_scale, read_config, write_config

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."


def read_adapter(
    folder: Path, name: str, heads: Iterable[str] = (), base: Mapping[str, Tensor] | None = None
) -> tuple[Adapter, dict[str, Tensor]]:
    """Read a PEFT LoRA folder strictly.

    Example::

        adapter, _ = read_adapter(Path("adapters/academy"), "academy")
        stack = concatenate_adapters([adapter])  # of tureen_core.soup

    Args:
        folder: holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        name: the adapter's name, in the result and in errors.
        heads: modules that ``modules_to_save`` may name; their tensors are returned separately.
        base: the base's tensors by name. PEFT may save whole modules beside a LoRA; they are passed over if they are
            the base's own.

    Returns:
        The adapter, and the heads' tensors by name (``score.weight``).

    Raises:
        SoupError: a file is missing or unreadable; the LoRA is not a sum of low-rank terms; an option is unknown; A or
            B of a module is missing or its rank differs from the configuration; or a tensor is unexpected.
    """
    allowed = tuple(heads)
    config = read_config(folder, name, allowed if base is None else None)
    halves: dict[str, dict[str, Tensor]] = {}
    extras: dict[str, Tensor] = {}
    for key, tensor in _tensors(folder, name).items():
        path = key.removeprefix(PREFIX)
        match = re.fullmatch(r"(.+)\.lora_([AB])\.weight", path)
        if path.split(".")[0] in allowed:
            extras[path] = tensor
        elif match and tensor.ndim == 2:
            halves.setdefault(match[1], {})[match[2]] = tensor
        elif base is None or not _is_own(path, tensor, base, name):
            raise SoupError(f"{name}: unexpected tensor {key} of shape {list(tensor.shape)}{_why(path)}")
    pairs = {path: _pair(path, half, config, name) for path, half in sorted(halves.items())}
    if not pairs:
        raise SoupError(f"{name}: the adapter holds no LoRA tensors")
    return Adapter(name, pairs), extras


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    try:
        return load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise SoupError(
            f"{name}: {folder} has no {WEIGHTS}; save safetensors, since pickles (.bin) are not read"
        ) from None
    except SafetensorError as error:
        raise SoupError(f"{name}: {WEIGHTS} cannot be read: {error}") from None


def _is_own(path: str, tensor: Tensor, base: Mapping[str, Tensor], name: str) -> bool:
    """Tell whether a whole tensor is the base's own, after rounding to the dtype that it was saved in.

    Raises:
        SoupError: the base has such a tensor, and it is another one.
    """
    own = base.get(path.replace(".base_layer.", "."))
    if own is None:
        return False
    if own.shape == tensor.shape and torch.equal(own.cpu().to(tensor.dtype), tensor):
        return True
    module = path.replace(".base_layer.", ".").rpartition(".")[0]
    raise SoupError(
        f"{name}: the whole trained module {module} is not the base's, and cannot be part of a soup: train without "
        "modules_to_save, or merge the adapter into its base and give the folder of the whole model"
    )


def _why(path: str) -> str:
    whole = ".base_layer." in path or ".lora_embedding_" in path
    return ": LoRA on embeddings or on a tied output head cannot be part of a soup" if whole else ""


def _pair(path: str, half: Mapping[str, Tensor], config: Mapping[str, Any], name: str) -> LoraPair:
    if set(half) != {"A", "B"}:
        raise SoupError(f"{name}: {path} has lora_{''.join(half)} only; A and B are both needed")
    a, b = half["A"], half["B"]
    declared = find_rank(config, path)
    if not 0 < a.shape[0] == b.shape[1] == declared:
        raise SoupError(f"{name}: {path} declares rank {declared} but A is {list(a.shape)} and B is {list(b.shape)}")
    return LoraPair(a, b, find_scale(config, path))


def write_adapter(
    adapter: Adapter,
    folder: Path,
    base: str,
    dtype: torch.dtype = torch.float32,
    extras: Mapping[str, Tensor] | None = None,
    task: str = "CAUSAL_LM",
) -> None:
    """Write an adapter as a PEFT folder that PEFT, vLLM and :func:`read_adapter` open.

    B is multiplied by the scale, so ``lora_alpha`` equals the rank of every module.

    Args:
        base: the base model's name or folder.
        dtype: of A and B on disk.
        extras: tensors of heads by name (``score.weight``), written in float32 and listed in ``modules_to_save``.
        task: PEFT's ``task_type``.

    Raises:
        SoupError: the adapter has no modules, and a PEFT folder needs at least one.
    """
    if not adapter.modules:
        raise SoupError(f"{adapter.name}: all weights are zero, so there is no adapter to write; use the base itself")
    folder.mkdir(parents=True, exist_ok=True)
    extras = dict(extras or {})
    saved = sorted({key.split(".")[0] for key in extras})
    write_config(folder, {path: pair.rank for path, pair in adapter.modules.items()}, base, task, saved)
    tensors = {PREFIX + key: tensor.float().contiguous() for key, tensor in extras.items()}
    for path, pair in adapter.modules.items():
        tensors[f"{PREFIX}{path}.lora_A.weight"] = pair.a.to(dtype).contiguous()
        tensors[f"{PREFIX}{path}.lora_B.weight"] = (pair.b.float() * pair.scale).to(dtype).contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors lets only the owner read, but containers run as another user
