"""How the differences of several experts from their base become one difference. Pure.

Each rule takes the differences ΔWᵢ ``[k, out, in]`` of one module and weights wᵢ ``[k]``. PEFT's functions prune and
elect signs. The sum is ours: PEFT divides a sum of weighted differences by their number, so weights that add up to 1
would count twice.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from peft.utils.merge_utils import calculate_majority_sign_mask, prune
from torch import Tensor

Rule = Literal["delta", "factor", "ties", "dare", "dare-ties", "magnitude"]
Pruning = Literal["magnitude", "random"]


def sum_weighted(deltas: Tensor, weights: Tensor) -> Tensor:
    """Sum the weighted differences: Σ wᵢ·ΔWᵢ ``[out, in]`` (task arithmetic, arXiv 2212.04089)."""
    return torch.einsum("k,koi->oi", weights, deltas)


def sum_agreeing(deltas: Tensor, weights: Tensor) -> Tensor:
    """Elect a sign for each value and sum only the differences that have it (TIES, arXiv 2306.01708, section 4).

    The sign is that of Σ wᵢ·ΔWᵢ. The result is Σ w · Σ₊ wᵢ·ΔWᵢ / Σ₊ |wᵢ|, where Σ₊ runs over the values of that sign.
    With equal weights 1/k this is the mean of the agreeing values, as in the paper with λ = 1. A value that pruning
    removed agrees with nothing.
    """
    weighted = deltas * weights[:, None, None]
    agreeing = calculate_majority_sign_mask(weighted, method="total") & (weighted != 0)
    shares = (agreeing * weights.abs()[:, None, None]).sum(0)
    kept = (weighted * agreeing).sum(0)
    mean = torch.where(shares > 0, kept / shares.clamp(min=torch.finfo(shares.dtype).tiny), torch.zeros_like(kept))
    return weights.abs().sum() * mean


def prune_differences(deltas: Tensor, density: float, how: Pruning) -> Tensor:
    """Keep a share ``density`` of each difference's values: the largest ones, or random ones.

    Random ones are divided by ``density``, so that their expectation stays (DARE, arXiv 2311.03099). They are drawn
    from torch's global generator.
    """
    if density == 1:
        return deltas
    return torch.stack([prune(delta, density, how, rescale=how == "random") for delta in deltas])


Merge = Callable[[Tensor, Tensor, float], Tensor]


def _merge(
    deltas: Tensor, weights: Tensor, density: float, how: Pruning, add: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    return add(prune_differences(deltas, density, how), weights)


# the rules that are not linear in rank space, each called with differences, weights and density
RULES: Mapping[Rule, Merge] = {
    "ties": partial(_merge, how="magnitude", add=sum_agreeing),
    "dare": partial(_merge, how="random", add=sum_weighted),
    "dare-ties": partial(_merge, how="random", add=sum_agreeing),
    "magnitude": partial(_merge, how="magnitude", add=sum_weighted),
}
