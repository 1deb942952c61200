"""Compute the last layer only for the tokens that a head reads, for most heads one token of each text.

All tokens still need keys and values in that layer. Attention and the MLP are skipped for tokens that no head reads.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tureen_serve.runtimes.on_transformers.rank_gate import RankGate


class LastMlp:
    """Replaces the forward of the last layer's MLP by one that computes some tokens and gives zeros for the others.

    Args:
        mlp: the module.
        gate: the gate of the adapters in it.
        layer: the number of its layer.

    Attributes:
        places: the tokens to compute, ``[N]``; None for all.
    """

    def __init__(self, mlp: Any, gate: RankGate | None, layer: int) -> None:
        self.layer = layer
        self.places: Tensor | None = None
        self._gate = gate
        self._compute = mlp.forward
        mlp.forward = self._forward

    def _forward(self, x: Tensor) -> Any:
        """Map ``[1, T, H]`` to ``[1, T, H]``."""
        if self.places is None:
            return self._compute(x)
        out = torch.zeros_like(x)
        with self._gate.select_tokens(self.places) if self._gate else nullcontext():
            out[:, self.places] = self._compute(x[:, self.places])
        return out


def wrap_last_mlp(layers: Sequence[nn.Module], gate: RankGate | None) -> LastMlp | None:
    """Wrap the MLP of the last of these layers; None if it has no module called ``mlp``."""
    mlp = getattr(layers[-1], "mlp", None) if layers else None
    return LastMlp(mlp, gate, len(layers) - 1) if isinstance(mlp, nn.Module) else None
