"""Models over one base share its weights in memory."""

import torch
from torch import nn

MERGED = ".base_layer"  # PEFT's name for a module that has an adapter


def share_equal_weights(first: nn.Module, second: nn.Module) -> int:
    """Let the second model use the first one's tensor for each of its weights that is equal and has the same name.

    Both models must be frozen. Models over one base then differ in memory only by their adapters and heads.

    Returns:
        The number of bytes that are no longer held twice.
    """
    held = {name.replace(MERGED, ""): weight for name, weight in first.named_parameters()}
    freed = 0
    for name, weight in second.named_parameters():
        same = held.get(name.replace(MERGED, ""))
        if same is not None and _is_equal(same, weight):
            freed += 0 if same.data_ptr() == weight.data_ptr() else weight.nbytes
            weight.data = same.data
    return freed


def _is_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    alike = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
    return alike and torch.equal(one, other)
