"""Merge a soup into a full checkpoint, W + ΔW, for programs that cannot load adapters."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tureen_core.lora import SoupError
from tureen_core.soup import Semantics, Stack, compute_delta


def merge_checkpoint(
    base: Path,
    stack: Stack,
    weights: Mapping[str, float],
    out: Path,
    semantics: Semantics = "delta",
    dtype: torch.dtype | None = None,
) -> None:
    """Write a soup as a full checkpoint. W + ΔW is summed in float32 and cast once.

    Example::

        stack = concatenate_adapters([read_adapter(Path(name), name)[0] for name in ("academy", "business")])
        merge_checkpoint(Path("base"), stack, {"academy": 0.6, "business": 0.4}, Path("merged"))

    Args:
        base: a Hugging Face folder with safetensors.
        out: a folder without weights. Nothing is written to it if the base does not fit the adapters.
        dtype: of the result; by default the base's own. bfloat16 loses small differences, float32 does not.

    Raises:
        SoupError: the base lacks an adapted module or has it in another shape; ``out`` already holds weights; or
            ``factor`` semantics are not defined.
    """
    if semantics == "factor":
        stack.require_factors()
    row = stack.order_weights(weights)
    _check_base(base, stack)
    if any(out.glob("*.safetensors")):
        raise SoupError(f"{out} already holds weights: choose an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    for source in sorted(base.iterdir()):
        if source.suffix == ".safetensors":
            tensors = _merged_shard(source, stack, row, semantics, dtype)
            save_file(tensors, out / source.name, metadata={"format": "pt"})
        elif source.is_file() and source.suffix not in {".bin", ".pt", ".gguf"}:
            shutil.copyfile(source, out / source.name)
    if dtype is not None:
        _declare(dtype, out / "config.json")


def _check_base(base: Path, stack: Stack) -> None:
    shapes: dict[str, list[int]] = {}
    for path in base.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            shapes |= {key: shard.get_slice(key).get_shape() for key in shard.keys()}  # noqa: SIM118
    for module, stacked in stack.modules.items():
        wanted, found = [stacked.b.shape[0], stacked.a.shape[1]], shapes.get(f"{module}.weight")
        if found is None:
            raise SoupError(f"{base} has no weight for {module}: it is tied, or these experts have another base")
        if found != wanted:
            raise SoupError(f"{base} has {module} as {found} and the experts adapt {wanted}: give their own base")


def _declare(dtype: torch.dtype, path: Path) -> None:
    config = json.loads(path.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2) + "\n")


def _merged_shard(
    source: Path, stack: Stack, row: Sequence[float], semantics: Semantics, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    tensors = {}
    with safe_open(source, framework="pt") as shard:
        for key in shard.keys():  # noqa: SIM118  (a safetensors handle is no mapping)
            tensor = shard.get_tensor(key)
            wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            stacked = stack.modules.get(key.removesuffix(".weight"))
            if stacked is not None:
                tensor = tensor.float() + compute_delta(stacked, row, semantics)
            tensors[key] = tensor.to(wanted).contiguous()
    return tensors
