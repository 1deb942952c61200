"""Quantised checkpoints: their weights are dequantised once, into a copy that is served as any other folder.

The copy has its weights in float32, and activations are not quantised. If plain transformers can dequantise the folder
too, both must have the same weights.
"""

import logging
import re
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tureen_core.peft_config import CONFIG as ADAPTER_CONFIG
from tureen_core.plain.backbones import write_backbone
from tureen_core.plain.checkpoint import Checkpoint, read_checkpoint, read_json
from tureen_core.plain.dequantisers import KINDS, Kind
from tureen_core.plain.gguf_files import convert_gguf, find_gguf
from tureen_core.plain.linear_heads import load_float32
from tureen_core.plain.options import PlainError
from tureen_core.quantisation import drop_quantisation, find_quantisation, name_quantisation

LOG = logging.getLogger(__name__)
CLOSE = 1e-4  # of a tensor's norm; codes in a wrong order or without their scale are much further away
SAVE = "save a copy in full precision with the library that wrote it, and serve that"


def dequantise_folder(folder: Path, cache: Path) -> Path:
    """Return the folder itself if its weights are not quantised, else a copy of it in ``cache`` with float32 weights.

    Raises:
        PlainError: the kind of quantisation is not read, needs a package, or does not fit the weights.
    """
    if (gguf := find_gguf(folder)) is not None:
        return convert_gguf(gguf, cache)
    settings = find_quantisation(read_json(folder / "config.json"))
    if not settings or (folder / ADAPTER_CONFIG).is_file():
        return folder
    name = name_quantisation(settings)
    kind = _choose_kind(folder, name)
    checkpoint = read_checkpoint(folder, cache)
    layers = _group_layers(checkpoint, kind)
    LOG.info("%s is quantised (%s): it is served with its weights dequantised to float32", folder.name, name)
    try:
        read = kind.open(folder, settings)
    except (ValueError, TypeError, KeyError) as error:
        raise PlainError(f"{_tell(folder, name)}, and cannot be read: {_shorten(error)}; {SAVE}") from error
    first = {min(parts.values()): layer for layer, parts in layers.items()}
    others = {each for parts in layers.values() for each in parts.values()} - set(first)

    def convert(tensor_name: str, tensor: Tensor) -> dict[str, Tensor]:
        if tensor_name in others:
            return {}
        layer = first.get(tensor_name)
        if layer is None:
            return {tensor_name: tensor}
        parts = {part: checkpoint.read_tensor(each) for part, each in layers[layer].items()}
        try:
            return {f"{layer}.weight": read(layer, parts)}
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError, AssertionError) as error:
            reason = f"the part {error} is missing" if isinstance(error, KeyError) else _shorten(error)
            raise PlainError(f"{_tell(folder, name)}, and {layer} cannot be read: {reason}; {SAVE}") from error

    return write_backbone(
        checkpoint,
        {**drop_quantisation(checkpoint.config), "dtype": "float32"},
        convert,
        f"{settings} {version('transformers')} {version(kind.package.replace('_', '-'))}",
        lambda copy: _compare(checkpoint, copy, name, kind),
    )


def _tell(folder: Path, name: str) -> str:
    return f"{folder.name} is quantised ({name}, by `quantization_config` of config.json)"


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _choose_kind(folder: Path, name: str) -> Kind:
    if name not in KINDS:
        raise PlainError(f"{_tell(folder, name)}; this version reads {', '.join(KINDS)} and GGUF files: {SAVE}")
    if not KINDS[name].is_installed():
        package = KINDS[name].package.replace("_", "-")
        raise PlainError(f"{_tell(folder, name)}, which needs {package}: pip install 'tureen[quantised]', or {SAVE}")
    return KINDS[name]


def _group_layers(checkpoint: Checkpoint, kind: Kind) -> dict[str, dict[str, str]]:
    """Group the names of the tensors of each quantised layer by the names of its parts."""
    pattern = re.compile(rf"(.+)\.({kind.parts})")
    layers: dict[str, dict[str, str]] = {}
    for name in checkpoint.shapes:
        if found := pattern.fullmatch(name):
            layers.setdefault(found[1], {})[found[2]] = name
    for layer, parts in layers.items():
        if f"{layer}.weight" in checkpoint.shapes:
            parts["weight"] = f"{layer}.weight"
    known = {each for parts in layers.values() for each in parts.values()}
    checkpoint.refuse_codes(known)
    return layers


def _compare(checkpoint: Checkpoint, copy: Path, name: str, kind: Kind) -> None:
    """Compare the copy's weights with those that plain transformers dequantises.

    Raises:
        PlainError: a weight differs.
    """
    import transformers

    opener = getattr(transformers, checkpoint.architecture, None)
    if kind.dequantising is None or opener is None:
        LOG.info("%s: plain transformers cannot dequantise it, so only what follows is proven", checkpoint.folder.name)
        return
    found = _measure(load_float32(opener, copy))
    wanted = _measure(_load_dequantised(opener, checkpoint, name, kind))
    for key, (shadow, norm) in found.items():
        other, length = wanted.get(key, (float("nan"), float("nan")))
        if not (abs(shadow - other) <= CLOSE * norm and abs(norm - length) <= CLOSE * norm):
            raise PlainError(
                f"{_tell(checkpoint.folder, name)}, and transformers and {kind.package} read {key} as other numbers: "
                f"one of them is wrong; {SAVE}"
            )


def _load_dequantised(opener: Any, checkpoint: Checkpoint, name: str, kind: Kind) -> Any:
    import transformers

    given = {}
    if kind.dequantising:
        given["quantization_config"] = getattr(transformers, kind.dequantising)(dequantize=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells what was asked for
            model = opener.from_pretrained(
                checkpoint.folder,
                dtype=torch.float32,
                device_map="cpu",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                **given,
            )
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = f"plain transformers cannot read it: {_shorten(error)}"
        raise PlainError(f"{_tell(checkpoint.folder, name)}, and {reason}; {SAVE}") from error
    return model if kind.dequantising else model.dequantize(dtype=torch.float32)


def _measure(model: Any) -> dict[str, tuple[float, float]]:
    """Project each tensor ``[..., N]`` on a fixed direction, and compute its norm; both tell it from other tensors."""
    found = {}
    for name, tensor in model.state_dict().items():
        rows = tensor.detach().reshape(-1, tensor.shape[-1] if tensor.ndim else 1).float()
        left, right = (torch.cos(torch.arange(size, dtype=torch.float32)) for size in rows.shape)
        found[name] = (float(left @ (rows @ right)), float(rows.norm()))
    return found
