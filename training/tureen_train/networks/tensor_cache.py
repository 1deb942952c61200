"""Tensors that are slow to compute, kept in a file for the next run."""

import os
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def load_or_compute(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Load the tensors of a file; if there is none, call ``make`` and write its tensors there in one step."""
    if path.is_file():
        return load_file(path)
    tensors = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")  # so that a half-written file is never read
    save_file(tensors, scratch)
    scratch.replace(path)
    return tensors
