"""The last layer, computed where a reward is read: for most heads that is one token of a text.

All tokens give keys and values there, as in every layer; attention and the MLP are left out for those not read.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tureen_serve.runtimes.on_transformers.rank_gate import RankGate


class LastMlp:
    """Makes the MLP of a model's last layer leave out tokens: those get zeros.

    Args:
        mlp: the module, whose forward this takes the place of.
        gate: of the adapters in it.
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
        """``[1, T, H]`` to the same."""
        if self.places is None:
            return self._compute(x)
        out = torch.zeros_like(x)
        with self._gate.select_tokens(self.places) if self._gate else nullcontext():
            out[:, self.places] = self._compute(x[:, self.places])
        return out


def wrap_last_mlp(layers: Sequence[nn.Module], gate: RankGate | None) -> LastMlp | None:
    """Of these layers, if the last has an MLP that is called so."""
    mlp = getattr(layers[-1], "mlp", None) if layers else None
    return LastMlp(mlp, gate, len(layers) - 1) if isinstance(mlp, nn.Module) else None
