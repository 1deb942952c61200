"""The gate in a Hugging Face model: a low-rank term beside each adapted Linear, weighed anew for every row of a batch.

An adapted Linear becomes ``base(x) + B_cat(mix(A_cat x))`` (:mod:`tureen_core.soup`). One :class:`RankGate` says for
all of them how row i of the batch mixes its rank activations. Nothing is merged: rows with different weights, and rows
of both semantics, share a batch: with d = w, u = 0 for a ``delta`` row and d = 0, u = w for a ``factor`` row,
h'ᵢ = dᵢ·hᵢ + uᵢ·Σⱼ uⱼhⱼ.
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
    """Which experts weigh what in each row of the batch that runs now. Not shared between threads."""

    def __init__(self, stack: Stack, dtype: torch.dtype, device: torch.device) -> None:
        self._stack = stack
        self._dtype, self._device = dtype, device
        self._ranks = {stacked.ranks for stacked in stack.modules.values()}
        self._unfactorable = stack.find_factor_obstacle()
        self.set_rows([])

    def set_rows(self, rows: Sequence[Mixture], lengths: Tensor | None = None) -> None:
        """Weigh the rows of the next forward passes, in batch order.

        Args:
            lengths: ``[B]`` tokens of each row where they stand end to end as one sequence; None where each is its own.

        Raises:
            SoupError: a weight names no expert, or ``factor`` is not defined for these experts.
        """
        factored = any(weights for weights, semantics in rows if semantics == "factor")
        if factored and self._unfactorable:
            raise SoupError(self._unfactorable)
        delta = self._weights(rows, "delta", lengths)
        self._factor = self._weights(rows, "factor", lengths) if factored else None
        self._delta = {ranks: spread_weights(delta, ranks) for ranks in self._ranks}
        self.is_closed = not any(weights for weights, _ in rows)

    def _weights(self, rows: Sequence[Mixture], semantics: Semantics, lengths: Tensor | None) -> Tensor:
        """``[B, 1, k]``, or ``[1, T, k]`` with lengths; the rows of the other semantics at zero."""
        table = [self._stack.order_weights(dict(weights) if kind == semantics else {}) for weights, kind in rows]
        weights = torch.tensor(table, dtype=self._dtype).reshape(len(rows), 1, len(self._stack.names))
        if lengths is not None:
            weights = weights.repeat_interleave(lengths, dim=0).transpose(0, 1)
        return weights.to(self._device)

    @contextmanager
    def select_tokens(self, places: Tensor) -> Iterator[None]:
        """Weigh only the tokens ``places`` ``[N]`` of the one sequence while this is open; then all of them again."""
        delta, factor = self._delta, self._factor
        self._delta = {ranks: each[:, places] for ranks, each in delta.items()}
        self._factor = None if factor is None else factor[:, places]
        try:
            yield
        finally:
            self._delta, self._factor = delta, factor

    def mix(self, h: Tensor, ranks: tuple[int, ...]) -> Tensor:
        """Rank activations ``[B, T, R]`` of one module, weighed row by row."""
        mixed = h * self._delta[ranks]
        return mixed if self._factor is None else mixed + apply_gate(h, self._factor, ranks, "factor")


class GatedLinear(nn.Module):
    """An adapted Linear, quantised or not, with all experts' factors beside it in the model's dtype."""

    a: Tensor
    b: Tensor

    def __init__(self, base: nn.Linear, stacked: StackedPair, gate: RankGate, dtype: torch.dtype) -> None:
        super().__init__()
        device = base.weight.device
        self.base, self.gate, self.ranks = base, gate, stacked.ranks
        self.register_buffer("a", stacked.a.to(device, dtype), persistent=False)
        self.register_buffer("b", stacked.b.to(device, dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, in]`` to ``[B, T, out]``."""
        y: Tensor = self.base(x)
        if self.gate.is_closed:
            return y
        return y + nn.functional.linear(self.gate.mix(nn.functional.linear(x, self.a), self.ranks), self.b)


def attach_adapters(model: Any, stack: Stack) -> RankGate:
    """Put a stack's factors beside the Linears that they adapt, and return the gate that weighs them.

    Args:
        model: a Hugging Face model, whole or headless: a headless one drops its ``base_model_prefix`` from the paths.

    Raises:
        SoupError: an adapted module is not in the model, or is no Linear of that shape.
    """
    gate = RankGate(stack, model.dtype, model.device)
    for path, stacked in stack.modules.items():
        place = _place(model, path)
        parent, _, name = place.rpartition(".")
        gated = GatedLinear(_linear(model, place, stacked), stacked, gate, model.dtype)
        setattr(model.get_submodule(parent), name, gated)
    return gate


def _place(model: Any, path: str) -> str:
    prefix = f"{model.base_model_prefix}."
    headless = not hasattr(model, model.base_model_prefix)
    return path.removeprefix(prefix) if headless else path


def _linear(model: Any, place: str, stacked: StackedPair) -> nn.Linear:
    try:
        module = model.get_submodule(place)
    except AttributeError:
        raise SoupError(
            f"{place} is adapted and {type(model).__name__} has no such module: it is another base"
        ) from None
    if not isinstance(module, nn.Linear):
        raise SoupError(f"{place} is a {type(module).__name__}; only Linear modules can be gated")
    wanted = stacked.a.shape[1], stacked.b.shape[0]
    if (module.in_features, module.out_features) != wanted:
        found = f"{module.in_features} to {module.out_features}"
        raise SoupError(f"{place} leads from {found} and the adapters expect {wanted[0]} to {wanted[1]}")
    return module
