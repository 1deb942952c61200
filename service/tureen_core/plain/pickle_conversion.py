"""``python -m tureen_core.plain.pickle_conversion FOLDER OUT``: see :mod:`tureen_core.plain.pickles`."""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tureen_core.plain.pickles import INDEX, PATTERN

SPARE_BYTES = 8 * 2**30  # of address space, for Python and torch


def limit_memory(shards: list[Path]) -> None:
    """Limit the address space to what the largest file needs: the mapped file, a copy and the written one."""
    largest = max(path.stat().st_size for path in shards)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = 3 * largest + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def rename_shard(name: str) -> str:
    """Name the safetensors file of a pickle: ``pytorch_model-1-of-2.bin`` is ``model-1-of-2.safetensors``."""
    return f"{name.removeprefix('pytorch_').removesuffix('.bin')}.safetensors"


def convert_shard(path: Path, target: Path) -> list[str]:
    """Convert one file. Returns the names of its tensors.

    Raises:
        ValueError: it holds something else than tensors by name.
    """
    found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(each, Tensor) for name, each in found.items()
    ):
        raise ValueError(f"{path.name} holds something else than tensors by name")
    kept: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in found.items():
        shared = tensor.untyped_storage().data_ptr() in stored
        stored.add(tensor.untyped_storage().data_ptr())
        kept[name] = (tensor.clone() if shared else tensor).contiguous()
    save_file(kept, target, metadata={"format": "pt"})
    return list(kept)


def main(folder: Path, out: Path) -> None:
    """Convert all files of a folder, and write their index where there are several."""
    shards = sorted(folder.glob(PATTERN))
    if (folder / INDEX).is_file():
        wanted = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
        if missing := sorted(wanted - {path.name for path in shards}):
            raise ValueError(f"{missing[0]} is in {INDEX} and not in the folder")
        shards = [path for path in shards if path.name in wanted]
    limit_memory(shards)
    index: dict[str, str] = {}
    for path in shards:
        name = rename_shard(path.name)
        index |= dict.fromkeys(convert_shard(path, out / name), name)
    if len(shards) > 1:
        content = {"metadata": {}, "weight_map": index}
        (out / "model.safetensors.index.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # the parent shows the last line; a pickle can raise anything
        message = " ".join(str(error).split())
        raise SystemExit(f"{type(error).__name__}: {message[:400]}") from None
