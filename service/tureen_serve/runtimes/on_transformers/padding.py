"""Pad token ids of unequal length to one tensor with a mask. The pad id may be any id, since the mask hides it."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

PAD = 0
SLACK = 16


def pad_sequences(
    sequences: Sequence[Sequence[int]], side: Literal["left", "right"], device: torch.device, pad: int = PAD
) -> tuple[Tensor, Tensor]:
    """Pad sequences to the longest: ids and mask, both ``[B, T]``. The mask is 1 on tokens and 0 on padding."""
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(sequence) for sequence in sequences], batch_first=True, padding_value=pad, padding_side=side
    )
    lengths = torch.tensor([len(sequence) for sequence in sequences]).unsqueeze(1)
    places = torch.arange(ids.shape[1])
    mask = places < lengths if side == "right" else places >= ids.shape[1] - lengths
    return ids.to(device), mask.long().to(device)


def compute_positions(mask: Tensor) -> Tensor:
    """Compute the position ``[B, T]`` of each token in its own sequence, for padding on either side."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def group_by_length(lengths: Mapping[int, int]) -> list[list[int]]:
    """Group keys by the length of their texts, shortest first.

    In a group no text is padded by more than a quarter of its length or :data:`SLACK` tokens, whichever is more.

    Args:
        lengths: maps a key to a length in tokens.
    """
    groups: list[list[int]] = []
    shortest = 0
    for key in sorted(lengths, key=lengths.__getitem__):
        if not groups or lengths[key] > shortest + max(SLACK, shortest // 4):
            groups.append([])
            shortest = lengths[key]
        groups[-1].append(key)
    return groups
