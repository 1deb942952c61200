"""Where a reward is read and how: pooling by the attention mask, then a head in float32.

Runtimes return hidden states; only this file makes rewards of them.
"""

from itertools import pairwise
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


class GatedHead(nn.Module):
    """What a prompt makes of K rewards: ArmoRM's gate (arXiv 2406.12845, section 3), in float32.

    g = scale · softmax(MLP(h) / temperature), and the overall reward is S = Σ_k g_k · (R M)_k = Σ_k R_k · c_k with the
    coefficients c = g Mᵀ. ``transform`` M ``[K, K]`` takes verbosity out of the other rewards; the identity to begin
    with. h is the last layer's hidden state at the prompt's last token, the one before the answer.

    Args:
        hidden: H of the backbone.
        rewards: K.
        width: of each of ``depth`` ReLU layers.
        dropout: after each of them, in training only.
    """

    transform: Tensor

    def __init__(
        self,
        hidden: int,
        rewards: int,
        width: int = 1024,
        depth: int = 3,
        temperature: float = 10.0,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = [hidden, *[width] * depth, rewards]
        self.layers = nn.ModuleList(nn.Linear(a, b, dtype=torch.float32) for a, b in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)
        self.temperature, self.scale = temperature, scale
        self.register_buffer("transform", torch.eye(rewards))

    @property
    def hidden(self) -> int:
        """H of the backbone that it reads."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        return first.in_features

    @property
    def rewards(self) -> int:
        """K, how many rewards it weighs."""
        return len(self.transform)

    def forward(self, prompts: Tensor) -> Tensor:
        """How much each reward counts, g ``[B, K]``: positive, each row's sum is ``scale``."""
        *hidden, last = self.layers
        with torch.autocast(prompts.device.type, enabled=False):
            state = prompts.float()
            for layer in hidden:
                state = self.dropout(nn.functional.relu(layer(state)))
            return self.scale * torch.softmax(last(state) / self.temperature, dim=-1)

    def coefficients(self, prompts: Tensor) -> Tensor:
        """c = g Mᵀ ``[B, K]`` of prompts' hidden states ``[B, H]``; a coefficient can be negative."""
        with torch.autocast(prompts.device.type, enabled=False):
            gates: Tensor = self(prompts)
            return gates @ self.transform.T

    @staticmethod
    def score(rewards: Tensor, coefficients: Tensor) -> Tensor:
        """Overall rewards ``[B]`` of rewards ``[B, K]`` and their prompts' coefficients ``[B, K]``."""
        return (rewards.float() * coefficients).sum(-1)


def pool_hidden_states(hidden: Tensor, mask: Tensor, pooling: Pooling, eos_appended: bool = False) -> Tensor:
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
    return hidden[
        torch.arange(len(hidden), device=hidden.device), find_readout_positions(present, pooling, eos_appended)
    ]


def find_readout_positions(mask: Tensor, pooling: Pooling, eos_appended: bool = False) -> Tensor:
    """Index ``[B]`` of the token whose hidden state ``last`` or ``eos`` reads; clamped to the first token."""
    present = mask.bool()
    width = present.shape[1]
    final = width - 1 - present.flip(1).int().argmax(1)
    if pooling == "last" and eos_appended:
        first = present.int().argmax(1)
        return torch.maximum(final - 1, first)
    return final
