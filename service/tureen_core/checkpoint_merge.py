"""Write a base with a soup, or with any differences of its weights, as a full checkpoint: W + ΔW."""

import json
import shutil
from collections.abc import Callable, Mapping
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
    shapes = {path: (stacked.b.shape[0], stacked.a.shape[1]) for path, stacked in stack.modules.items()}
    add_deltas(base, shapes, lambda path: compute_delta(stack.modules[path], row, semantics), out, dtype)


def add_deltas(
    base: Path,
    shapes: Mapping[str, tuple[int, int]],
    compute: Callable[[str], Tensor],
    out: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a base with differences added to its weights. They are summed in float32 and cast once.

    Args:
        base: a Hugging Face folder with safetensors.
        shapes: the shape ``(out, in)`` of each changed module's weight, by the module's path.
        compute: computes a module's difference ``[out, in]`` in float32. It is called once for each module.
        out: a folder without weights. Nothing is written to it if the base does not fit the shapes.
        dtype: of the result; by default the base's own.

    Raises:
        SoupError: the base lacks a module or has it in another shape, or ``out`` already holds weights.
    """
    _check_base(base, shapes)
    if any(out.glob("*.safetensors")):
        raise SoupError(f"{out} already holds weights: choose an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    for source in sorted(base.iterdir()):
        if source.suffix == ".safetensors":
            tensors = _merged_shard(source, shapes, compute, dtype)
            save_file(tensors, out / source.name, metadata={"format": "pt"})
        elif source.is_file() and source.suffix not in {".bin", ".pt", ".gguf"}:
            shutil.copyfile(source, out / source.name)
    if dtype is not None:
        _declare(dtype, out / "config.json")


def _check_base(base: Path, wanted: Mapping[str, tuple[int, int]]) -> None:
    shapes: dict[str, list[int]] = {}
    for path in base.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            shapes |= {key: shard.get_slice(key).get_shape() for key in shard.keys()}  # noqa: SIM118
    for module, shape in wanted.items():
        found = shapes.get(f"{module}.weight")
        if found is None:
            raise SoupError(f"{base} has no weight for {module}: it is tied, or these experts have another base")
        if found != list(shape):
            raise SoupError(f"{base} has {module} as {found} and the experts adapt {list(shape)}: give their own base")


def _declare(dtype: torch.dtype, path: Path) -> None:
    config = json.loads(path.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2) + "\n")


def _merged_shard(
    source: Path, changed: Mapping[str, tuple[int, int]], compute: Callable[[str], Tensor], dtype: torch.dtype | None
) -> dict[str, Tensor]:
    tensors = {}
    with safe_open(source, framework="pt") as shard:
        for key in shard.keys():  # noqa: SIM118  (a safetensors handle is no mapping)
            tensor = shard.get_tensor(key)
            wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            module = key.removesuffix(".weight")
            if module in changed:
                tensor = tensor.float() + compute(module)
            tensors[key] = tensor.to(wanted).contiguous()
    return tensors
