"""Arithmetic of soups: weighted sums of several LoRA adapters of one base, computed in rank space.

With k experts, stack their A on the rank axis, multiply each B by its scale s, and stack the B too. Then

    Σ wᵢ·sᵢ·Bᵢ·Aᵢ  =  B_cat · diag(gate) · A_cat,        gate = w spread over each expert's ranks.

So another soup costs one multiplication by its gate, and no weights are merged to serve it. There are two semantics:

* ``delta`` is the sum above, linear in w (Ilharco et al., arXiv 2212.04089; Rewarded Soups, 2306.04488, on weights).
* ``factor`` averages A and B separately: ΔW = s·(Σ wᵢBᵢ)(Σ wⱼAⱼ). The released code of Personalized Soups
  (2310.11564) and of Rewarded Soups computes this on adapters. It has cross terms BᵢAⱼ and is quadratic in w.

Shapes: A is ``[r, in]`` and B is ``[out, r]``, as PEFT stores them. R = Σ rᵢ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tureen_core.lora import Adapter, LoraPair, SoupError

Semantics = Literal["delta", "factor"]


@dataclass(frozen=True)
class StackedPair:
    """One module's pairs, concatenated: a ``[R, in]`` and b ``[out, R]`` in float32, b multiplied by the scales.

    ``ranks[i]`` is the part of R that belongs to expert i; 0 if expert i does not adapt the module.
    """

    a: Tensor
    b: Tensor
    ranks: tuple[int, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True)
class Stack:
    """The concatenated experts of one base: their names in the gate's order, and a stacked pair for each module."""

    names: tuple[str, ...]
    modules: Mapping[str, StackedPair]

    def order_weights(self, weights: Mapping[str, float]) -> list[float]:
        """Put weights in the gate's order, with 0 for an expert without a weight.

        Raises:
            SoupError: a weight has the name of no expert.
        """
        unknown = set(weights) - set(self.names)
        if unknown:
            raise SoupError(f"no expert is called {sorted(unknown)[0]!r}; there are {', '.join(self.names)}")
        return [weights.get(name, 0.0) for name in self.names]

    @property
    def largest_ranks(self) -> tuple[int, ...]:
        """Each expert's largest rank; 0 for an expert that adapts no module."""
        stacked_pairs = self.modules.values()
        return tuple(
            max((stacked.ranks[expert] for stacked in stacked_pairs), default=0) for expert in range(len(self.names))
        )

    def find_factor_obstacle(self) -> str | None:
        """Say why ``factor`` semantics are not defined; None if they are."""
        for path, stacked in self.modules.items():
            if len(set(stacked.ranks)) > 1 or len(set(stacked.scales)) > 1:
                unequal = f"{path} has ranks {stacked.ranks} and scales {stacked.scales}"
                return f"averaging factors needs equal ranks and scales, and {unequal}"
        return None

    def require_factors(self) -> None:
        """Raise :class:`SoupError` where ``factor`` semantics are not defined."""
        obstacle = self.find_factor_obstacle()
        if obstacle:
            raise SoupError(obstacle)


# --------------------------------------------------------------------------- the algebra


def concatenate_adapters(adapters: Sequence[Adapter]) -> Stack:
    """Concatenate adapters on the rank axis. An adapter has rank 0 in a module that it does not adapt.

    Example::

        stack = concatenate_adapters([read_adapter(Path(name), name)[0] for name in ("academy", "business")])
        soup = merge_adapter(stack, {"academy": 0.6, "business": 0.4}, "soup")

    Raises:
        SoupError: two adapters have the same name, or their shapes belong to different bases.
    """
    names = tuple(adapter.name for adapter in adapters)
    if len(set(names)) < len(names):
        raise SoupError(f"two experts have one name: {', '.join(names)}; rename one")
    paths = sorted({path for adapter in adapters for path in adapter.modules})
    return Stack(
        names, {path: _stack_pairs(path, [adapter.modules.get(path) for adapter in adapters]) for path in paths}
    )


def _stack_pairs(path: str, pairs: Sequence[LoraPair | None]) -> StackedPair:
    present = [pair for pair in pairs if pair is not None]
    shapes = {(pair.a.shape[1], pair.b.shape[0]) for pair in present}
    if len(shapes) > 1:
        raise SoupError(f"the experts adapt {path} as layers of different shapes (in, out): {sorted(shapes)}")
    return StackedPair(
        a=torch.cat([pair.a.float() for pair in present]),
        b=torch.cat([pair.b.float() * pair.scale for pair in present], dim=1),
        ranks=tuple(pair.rank if pair else 0 for pair in pairs),
        scales=tuple(pair.scale if pair else 0.0 for pair in pairs),
    )


def pad_ranks(stack: Stack) -> Stack:
    """Pad each expert to its largest rank in every module, so that one gate row fits all modules.

    The padding of A and B is zero and does not change ΔW.
    """
    return Stack(
        stack.names, {path: _pad_pair(stacked, stack.largest_ranks) for path, stacked in stack.modules.items()}
    )


def _pad_pair(stacked: StackedPair, ranks: Sequence[int]) -> StackedPair:
    if stacked.ranks == tuple(ranks):
        return stacked
    a = stacked.a.new_zeros(sum(ranks), stacked.a.shape[1])
    b = stacked.b.new_zeros(stacked.b.shape[0], sum(ranks))
    places = [
        start + offset for start, own in zip(_find_starts(ranks), stacked.ranks, strict=True) for offset in range(own)
    ]
    a[places], b[:, places] = stacked.a, stacked.b
    return StackedPair(a, b, tuple(ranks), stacked.scales)


def _find_starts(ranks: Sequence[int]) -> list[int]:
    return [sum(ranks[:expert]) for expert in range(len(ranks))]


def spread_weights(weights: Tensor, ranks: Sequence[int]) -> Tensor:
    """Spread expert weights ``[..., k]`` over their ranks: the gate ``[..., R]``."""
    repeats = torch.tensor(ranks, device=weights.device)
    return weights.repeat_interleave(repeats, dim=-1, output_size=sum(ranks))


def apply_gate(h: Tensor, row: Tensor, ranks: Sequence[int], semantics: Semantics = "delta") -> Tensor:
    """Apply a gate to rank activations.

    Args:
        h: ``[..., R]``, A_cat's output.
        row: ``[..., k]`` expert weights; the leading axes are broadcast with those of ``h``.
        ranks: each expert's part of R; all equal for ``factor``.
        semantics: ``delta`` multiplies; ``factor`` gives h'ᵢ = wᵢ · Σⱼ wⱼhⱼ.

    Returns:
        ``[..., R]``, the input of B_cat.

    Raises:
        SoupError: the semantics are ``factor`` and the ranks differ.
    """
    if semantics == "delta":
        return h * spread_weights(row, ranks)
    if len(set(ranks)) > 1:
        raise SoupError(f"averaging factors needs equal ranks, not {tuple(ranks)}")
    parts = h.unflatten(-1, (len(ranks), ranks[0]))
    pooled = (parts * row.unsqueeze(-1)).sum(-2, keepdim=True)
    mixed: Tensor = (pooled * row.unsqueeze(-1)).flatten(-2)
    return mixed


def compute_delta(stacked: StackedPair, row: Sequence[float], semantics: Semantics = "delta") -> Tensor:
    """Compute ΔW ``[out, in]`` of one module in float32.

    Raises:
        SoupError: the semantics are ``factor`` and the ranks or scales differ.
    """
    if semantics == "factor" and len(set(stacked.scales)) > 1:
        raise SoupError(f"averaging factors needs equal scales, not {stacked.scales}")
    weights = torch.tensor(row, dtype=torch.float32)
    return stacked.b @ apply_gate(stacked.a.T, weights, stacked.ranks, semantics).T


def merge_adapter(stack: Stack, weights: Mapping[str, float], name: str, semantics: Semantics = "delta") -> Adapter:
    """Merge a soup into one ordinary LoRA: of rank Σ rᵢ over the experts whose weight is not 0, or r for ``factor``.

    Raises:
        SoupError: ``factor`` is not defined for these experts, or a weight has the name of no expert.
    """
    row = stack.order_weights(weights)
    if semantics == "factor":
        stack.require_factors()
        return Adapter(name, {path: _factor_pair(stacked, row) for path, stacked in stack.modules.items()})
    pairs = {path: _delta_pair(stacked, row) for path, stacked in stack.modules.items()}
    return Adapter(name, {path: pair for path, pair in pairs.items() if pair.rank})


def _delta_pair(stacked: StackedPair, row: Sequence[float]) -> LoraPair:
    gate = spread_weights(torch.tensor(row), stacked.ranks)
    keep = gate != 0
    return LoraPair(stacked.a[keep], (stacked.b * gate)[:, keep], 1.0)


def _factor_pair(stacked: StackedPair, row: Sequence[float]) -> LoraPair:
    weights = torch.tensor(row)
    experts = len(stacked.ranks)
    a = (stacked.a.unflatten(0, (experts, -1)) * weights[:, None, None]).sum(0)
    b = (stacked.b.unflatten(1, (experts, -1)) * weights[None, :, None]).sum(1)
    return LoraPair(a, b, 1.0)
