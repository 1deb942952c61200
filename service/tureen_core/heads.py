"""Where a reward is read and how: pooling by the attention mask, then a head in float32.

Runtimes return hidden states; only this file makes rewards of them.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["last", "eos", "mean", "max"]


class LinearHead(nn.Linear):
    """Hidden state ``[..., H]`` to K rewards ``[..., K]`` in float32, also under autocast.

    One objective is a Bradley-Terry head, several are a multi-objective one. No bias: a Bradley-Terry
    loss cannot see it, and the calibration carries the offset.
    """

    def __init__(self, hidden: int, objectives: int = 1) -> None:
        super().__init__(hidden, objectives, bias=False, dtype=torch.float32)

    def forward(self, input: Tensor) -> Tensor:
        """Rewards of pooled hidden states."""
        with torch.autocast(input.device.type, enabled=False):
            return nn.functional.linear(input.float(), self.weight.float())


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling, eos_appended: bool = False) -> Tensor:
    """One vector for each sequence.

    Args:
        hidden: ``[B, T, H]``.
        mask: ``[B, T]``, 1 on tokens and 0 on padding, on either side. Never a comparison with a pad id.
        pooling: ``eos`` reads the last token; ``last`` the token before an appended EOS, and the last token where
            none is appended (DSP's two, arXiv 2309.03126); ``mean`` and ``max`` run over the tokens.
        eos_appended: whether rendering ends every sequence with EOS.

    Returns:
        ``[B, H]`` float32.

    Raises:
        ValueError: a sequence has no token to read.
    """
    present = mask.bool()
    lengths = present.sum(1)
    if bool((lengths == 0).any()):
        raise ValueError(f"sequence {int((lengths == 0).nonzero()[0, 0])} has no tokens to read a reward from")
    hidden = hidden.float()
    if pooling == "mean":
        return hidden.masked_fill(~present.unsqueeze(-1), 0.0).sum(1) / lengths.unsqueeze(-1)
    if pooling == "max":
        return hidden.masked_fill(~present.unsqueeze(-1), float("-inf")).amax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), position(present, pooling, eos_appended)]


def position(mask: Tensor, pooling: Pooling, eos_appended: bool = False) -> Tensor:
    """Index ``[B]`` of the token whose hidden state ``last`` or ``eos`` reads; clamped to the first token."""
    present = mask.bool()
    width = present.shape[1]
    final = width - 1 - present.flip(1).int().argmax(1)
    if pooling == "last" and eos_appended:
        first = present.int().argmax(1)
        return torch.maximum(final - 1, first)
    return final
