"""Read-out of rewards: pooling of hidden states by the attention mask, then a head in float32.

Runtimes return hidden states. Only this module turns them into rewards.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["last", "eos", "mean", "max"]


class LinearHead(nn.Linear):
    """Maps hidden states ``[..., H]`` to K rewards ``[..., K]`` in float32, also under autocast.

    The head has no bias: a Bradley-Terry loss does not depend on one, and the calibration holds the offset.
    """

    def __init__(self, hidden: int, objectives: int = 1) -> None:
        super().__init__(hidden, objectives, bias=False, dtype=torch.float32)

    def forward(self, input: Tensor) -> Tensor:
        """Compute rewards ``[..., K]`` of pooled hidden states ``[..., H]``."""
        with torch.autocast(input.device.type, enabled=False):
            return nn.functional.linear(input.float(), self.weight.float())


class GatedHead(nn.Module):
    """Weighs K rewards by the prompt: ArmoRM's gate (arXiv 2406.12845, section 3), in float32.

    g = scale · softmax(MLP(h) / temperature), and the overall reward is S = Σ_k g_k · (R M)_k = Σ_k R_k · c_k with the
    coefficients c = g Mᵀ. ``transform`` M ``[K, K]`` removes the correlation with verbosity from the other rewards; at
    first it is the identity. h is the last layer's hidden state at the last token before the answer.

    Args:
        hidden: H, the backbone's hidden size.
        rewards: K.
        width: the size of each of the ``depth`` ReLU layers.
        temperature: divides the logits of the softmax.
        scale: the sum of g before training; training changes it.
        dropout: applied after each ReLU layer, in training only.
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
        self.temperature = temperature
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float32))  # ArmoRM's logit_scale
        self.register_buffer("transform", torch.eye(rewards))

    @property
    def hidden(self) -> int:
        """H, the backbone's hidden size."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        return first.in_features

    @property
    def rewards(self) -> int:
        """K, the number of rewards."""
        return len(self.transform)

    def forward(self, prompts: Tensor) -> Tensor:
        """Compute g ``[B, K]`` of prompts' hidden states ``[B, H]``: positive, and each row sums to ``scale``."""
        *hidden, last = self.layers
        with torch.autocast(prompts.device.type, enabled=False):
            state = prompts.float()
            for layer in hidden:
                state = self.dropout(nn.functional.relu(layer(state)))
            return self.scale * torch.softmax(last(state) / self.temperature, dim=-1)

    def coefficients(self, prompts: Tensor) -> Tensor:
        """Compute c = g Mᵀ ``[B, K]`` of prompts' hidden states ``[B, H]``. A coefficient can be negative."""
        with torch.autocast(prompts.device.type, enabled=False):
            gates: Tensor = self(prompts)
            return gates @ self.transform.T

    @staticmethod
    def score(rewards: Tensor, coefficients: Tensor) -> Tensor:
        """Compute overall rewards ``[B]`` from rewards ``[B, K]`` and their prompts' coefficients ``[B, K]``."""
        return (rewards.float() * coefficients).sum(-1)


def pool_hidden_states(hidden: Tensor, mask: Tensor, pooling: Pooling, eos_appended: bool = False) -> Tensor:
    """Pool each sequence's hidden states to one vector.

    Args:
        hidden: ``[B, T, H]``.
        mask: ``[B, T]``, 1 on tokens and 0 on padding, which may be on either side. It must not be computed by
            comparing ids with the pad id.
        pooling: ``eos`` takes the last token. ``last`` takes the token before an appended EOS, and the last token if
            none is appended. DSP (arXiv 2309.03126) has both. ``mean`` and ``max`` run over all tokens.
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
    """Find the index ``[B]`` of the token that ``last`` or ``eos`` pooling takes.

    A sequence of one token is read at that token, also where ``last`` would take the token before it.
    """
    present = mask.bool()
    width = present.shape[1]
    final = width - 1 - present.flip(1).int().argmax(1)
    if pooling == "last" and eos_appended:
        first = present.int().argmax(1)
        return torch.maximum(final - 1, first)
    return final
