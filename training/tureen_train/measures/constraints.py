"""PCRM (arXiv 2404.00978): the similarity of two answers, the cap δ on their reward gap, and the loss with it. Pure.

The loss of a pair with reward gap g is softplus(−g) + softplus(g − δ). It is convex and symmetric about its minimum at
δ/2, so training draws the gap to δ/2, and δ is twice the wanted gap.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from tureen_train.config.ranking import Constraint, FixedCap, RandomCap, SimilarityCap
from tureen_train.measures.metrics import Array


def compute_angular_similarity(cosine: ArrayLike) -> Array:
    """Return s = (π − arccos q) / π in [½, 1], where q is the cosine, clipped to [0, 1]."""
    q = np.clip(np.asarray(cosine, dtype=np.float64), 0.0, 1.0)
    return np.asarray((math.pi - np.arccos(q)) / math.pi)


def find_divergence(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the number of tokens that two texts share at their start."""
    shared = (place for place, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return next(shared, min(len(first), len(second)))


def compute_length_ratio(first: Sequence[int], second: Sequence[int]) -> float:
    """Divide the shorter length by the longer one, in tokens after the shared start; 1 if nothing is left of either.

    Two texts that were cut to the same length count as equally long, as in PCRM's code.
    """
    start = find_divergence(first, second)
    shorter, longer = sorted((len(first) - start, len(second) - start))
    return shorter / longer if longer else 1.0


def compute_caps(settings: Constraint, similarity: ArrayLike) -> Array:
    """Compute δ for each similarity s. For random caps it is the mean of their range.

    Args:
        settings: with a similarity prior, δ = min(β₁ / (s + β₂) + β₃, ceiling).
        similarity: of any shape, in [0, 1].

    Returns:
        The same shape.
    """
    s = np.asarray(similarity, dtype=np.float64)
    if isinstance(settings, SimilarityCap):
        with np.errstate(divide="ignore"):  # s = β₂ = 0 gives infinity, which the ceiling cuts
            caps = settings.beta1 / (s + settings.beta2) + settings.beta3
        return np.asarray(np.minimum(caps, settings.ceiling))
    return np.full(s.shape, settings.value if isinstance(settings, FixedCap) else (settings.low + settings.high) / 2)


def draw_caps(settings: RandomCap, count: int) -> Tensor:
    """Draw ``count`` caps ``[P]`` from torch's global generator.

    A run seeds it and its checkpoints save it, so that a resumed run draws the same caps.
    """
    return settings.low + (settings.high - settings.low) * torch.rand(count)


def compute_token_gaps(
    rewards: Tensor, ids: Tensor, mask: Tensor, better: Tensor, worse: Tensor, hold: bool = True
) -> tuple[Tensor, Tensor]:
    """Compute the reward gap of each pair at every token, and the weights of a mean over the pair's span.

    The span begins where the two texts diverge and ends with the longer one. For two equal texts it is the last token.

    Args:
        rewards: ``[M, T]``, one for each token.
        ids: ``[M, T]``.
        mask: ``[M, T]``, padded on the right.
        better: ``[P]``, the row of the better text of each pair.
        worse: ``[P]``, the row of the worse one.
        hold: whether a text keeps the reward of its last token past its end. If not, the rewards of its padding count,
            as in PCRM's code.

    Returns:
        Gaps ``[P, T]`` and weights ``[P, T]``, whose rows sum to 1.
    """
    present = mask.bool()
    lengths = present.sum(1)
    places = torch.arange(ids.shape[1], device=ids.device)[None, :]
    if hold:
        rewards = rewards.gather(1, torch.minimum(places, lengths[:, None] - 1))
    ends = torch.maximum(lengths[better], lengths[worse])[:, None]
    differ = (ids[better] != ids[worse]) | (present[better] != present[worse])
    starts = torch.where(differ.any(1), differ.int().argmax(1), ends[:, 0] - 1)[:, None]
    span = ((places >= starts) & (places < ends)).to(rewards.dtype)
    return rewards[better] - rewards[worse], span / span.sum(1, keepdim=True)


def sum_pair_losses(gaps: Tensor, weights: Tensor) -> Tensor:
    """Sum over pairs of the weighted mean of −ln σ(gap). ``gaps`` and ``weights`` are ``[P, L]``."""
    return (functional.softplus(-gaps) * weights).sum()


def sum_cap_losses(gaps: Tensor, weights: Tensor, caps: Tensor) -> Tensor:
    """Sum over pairs of the weighted mean of −ln σ(δ − gap). ``caps [P]`` are constants: they get no gradient."""
    return (functional.softplus(gaps - caps.detach()[:, None]) * weights).sum()
