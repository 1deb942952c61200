"""Token ids of unequal length as one tensor and its mask. The pad id is any id: nothing reads what the mask hides."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

PAD = 0
SLACK = 16


def pad_sequences(
    sequences: Sequence[Sequence[int]], side: Literal["left", "right"], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Ids and mask, both ``[B, T]``, T the longest; the mask is 1 on tokens."""
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(sequence) for sequence in sequences], batch_first=True, padding_value=PAD, padding_side=side
    )
    lengths = torch.tensor([len(sequence) for sequence in sequences]).unsqueeze(1)
    places = torch.arange(ids.shape[1])
    mask = places < lengths if side == "right" else places >= ids.shape[1] - lengths
    return ids.to(device), mask.long().to(device)


def compute_positions(mask: Tensor) -> Tensor:
    """Position of each token in its own sequence, ``[B, T]``, whatever side is padded."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def group_by_length(lengths: Mapping[int, int]) -> list[list[int]]:
    """Keys in groups by length, shortest first; none is padded by more than a quarter or :data:`SLACK` places."""
    groups: list[list[int]] = []
    shortest = 0
    for key in sorted(lengths, key=lengths.__getitem__):
        if not groups or lengths[key] > shortest + max(SLACK, shortest // 4):
            groups.append([])
            shortest = lengths[key]
        groups[-1].append(key)
    return groups
