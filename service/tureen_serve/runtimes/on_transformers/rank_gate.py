"""Rank gates in a Hugging Face model: each adapted Linear adds a low-rank term with weights for each row of a batch.

An adapted Linear becomes ``base(x) + B_cat(mix(A_cat x))`` (:mod:`tureen_core.soup`). One :class:`RankGate` tells
all of them how row i of the batch mixes its rank activations. No weights are merged, so rows with different weights,
and of both semantics, share a batch. With d = w and u = 0 for a ``delta`` row, and d = 0 and u = w for a ``factor``
row, h'ᵢ = dᵢ·hᵢ + uᵢ·Σⱼ uⱼhⱼ.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tureen_core.lora import SoupError
from tureen_core.soup import Semantics, Stack, StackedPair, apply_gate, spread_weights
from tureen_serve.runtimes.contract import Weights

Mixture = tuple[Weights, Semantics]


class RankGate:
    """The experts' weights in each row of the batch that runs now. It must not be shared between threads.

    Attributes:
        is_closed: whether all weights of the batch are zero, so that every row is the bare base.
    """

    def __init__(self, stack: Stack, dtype: torch.dtype, device: torch.device) -> None:
        self._stack = stack
        self._dtype, self._device = dtype, device
        self._ranks = {stacked.ranks for stacked in stack.modules.values()}
        self._factor_obstacle = stack.find_factor_obstacle()
        self.set_rows([])

    def set_rows(self, rows: Sequence[Mixture], lengths: Tensor | None = None) -> None:
        """Set the weights of each row of the batch for the next forward passes.

        Args:
            rows: the weights and semantics of each row.
            lengths: ``[B]``, the number of tokens of each row if the batch is packed to one sequence; else None.

        Raises:
            SoupError: a weight has the name of no expert, or ``factor`` is not defined for these experts.
        """
        factored = any(weights for weights, semantics in rows if semantics == "factor")
        if factored and self._factor_obstacle:
            raise SoupError(self._factor_obstacle)
        delta = self._weights(rows, "delta", lengths)
        self._factor = self._weights(rows, "factor", lengths) if factored else None
        self._delta = {ranks: spread_weights(delta, ranks) for ranks in self._ranks}
        self.is_closed = not any(weights for weights, _ in rows)

    def _weights(self, rows: Sequence[Mixture], semantics: Semantics, lengths: Tensor | None) -> Tensor:
        """Make the weights ``[B, 1, k]``, or ``[1, T, k]`` with lengths. Rows of the other semantics are zero."""
        table = [self._stack.order_weights(dict(weights) if kind == semantics else {}) for weights, kind in rows]
        weights = torch.tensor(table, dtype=self._dtype).reshape(len(rows), 1, len(self._stack.names))
        if lengths is not None:
            weights = weights.repeat_interleave(lengths, dim=0).transpose(0, 1)
        return weights.to(self._device)

    @contextmanager
    def select_tokens(self, places: Tensor) -> Iterator[None]:
        """Within the block, use the weights of the tokens ``places`` ``[N]`` of a packed sequence only."""
        delta, factor = self._delta, self._factor
        self._delta = {ranks: each[:, places] for ranks, each in delta.items()}
        self._factor = None if factor is None else factor[:, places]
        try:
            yield
        finally:
            self._delta, self._factor = delta, factor

    def mix(self, h: Tensor, ranks: tuple[int, ...]) -> Tensor:
        """Mix one module's rank activations ``[B, T, R]`` by the weights of their rows."""
        mixed = h * self._delta[ranks]
        return mixed if self._factor is None else mixed + apply_gate(h, self._factor, ranks, "factor")


class GatedLinear(nn.Module):
    """A Linear, quantised or not, with the A and B of all experts in the model's dtype."""

    a: Tensor
    b: Tensor

    def __init__(self, base: nn.Linear, stacked: StackedPair, gate: RankGate, dtype: torch.dtype) -> None:
        super().__init__()
        device = base.weight.device
        self.base, self.gate, self.ranks = base, gate, stacked.ranks
        self.register_buffer("a", stacked.a.to(device, dtype), persistent=False)
        self.register_buffer("b", stacked.b.to(device, dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, T, in]`` to ``[B, T, out]``."""
        y: Tensor = self.base(x)
        if self.gate.is_closed:
            return y
        return y + nn.functional.linear(self.gate.mix(nn.functional.linear(x, self.a), self.ranks), self.b)


def attach_adapters(model: Any, stack: Stack) -> RankGate:
    """Replace each adapted Linear of a model by a :class:`GatedLinear`, and return the gate of all of them.

    Args:
        model: a Hugging Face model. A model without head has no ``base_model_prefix`` in its module paths.

    Raises:
        SoupError: the model lacks an adapted module, or the module is not a Linear of the right shape.
    """
    gate = RankGate(stack, model.dtype, model.device)
    for path, stacked in stack.modules.items():
        place = _find_path(model, path)
        parent, _, name = place.rpartition(".")
        gated = GatedLinear(_find_linear(model, place, stacked), stacked, gate, model.dtype)
        setattr(model.get_submodule(parent), name, gated)
    return gate


def _find_path(model: Any, path: str) -> str:
    prefix = f"{model.base_model_prefix}."
    headless = not hasattr(model, model.base_model_prefix)
    return path.removeprefix(prefix) if headless else path


def _find_linear(model: Any, place: str, stacked: StackedPair) -> nn.Linear:
    try:
        module = model.get_submodule(place)
    except AttributeError:
        raise SoupError(
            f"{place} is adapted, but {type(model).__name__} has no such module: use the adapter's own base"
        ) from None
    if not isinstance(module, nn.Linear):
        raise SoupError(f"{place} is a {type(module).__name__}; only Linear modules can be gated")
    wanted = stacked.a.shape[1], stacked.b.shape[0]
    if (module.in_features, module.out_features) != wanted:
        found = f"{module.in_features} to {module.out_features}"
        expected = f"the adapters expect {wanted[0]} to {wanted[1]}"
        raise SoupError(f"{place} leads from {found} and {expected}: use the adapters' own base")
    return module
