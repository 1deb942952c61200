"""PCRM (arXiv 2404.00978): how alike two answers are, the cap δ on their reward gap, and the loss with it. Pure.

A pair's loss is softplus(−g) + softplus(g − δ) for its gap g: convex, symmetric about δ/2, and least there. So δ/2 is
where a gap comes to rest, and δ is twice the gap that is wanted.
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


def angular_similarity(cosine: ArrayLike) -> Array:
    """s = (π − arccos q) / π in [½, 1], q the cosine, cut to [0, 1]."""
    q = np.clip(np.asarray(cosine, dtype=np.float64), 0.0, 1.0)
    return np.asarray((math.pi - np.arccos(q)) / math.pi)


def find_divergence(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts share before they part."""
    shared = (place for place, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return next(shared, min(len(first), len(second)))


def compute_length_ratio(first: Sequence[int], second: Sequence[int]) -> float:
    """Shorter over longer in tokens, counted from where the two diverge; 1 where nothing is left of either.

    Two texts that were cut to one length count as equally long, as PCRM has it.
    """
    start = find_divergence(first, second)
    shorter, longer = sorted((len(first) - start, len(second) - start))
    return shorter / longer if longer else 1.0


def compute_caps(settings: Constraint, similarity: ArrayLike) -> Array:
    """δ of each similarity s; where it is drawn, the mean of what is drawn.

    Args:
        settings: for a prior of similarity, δ = min(β₁ / (s + β₂) + β₃, ceiling).
        similarity: of any shape, in [0, 1].

    Returns:
        The same shape.
    """
    s = np.asarray(similarity, dtype=np.float64)
    if isinstance(settings, SimilarityCap):
        with np.errstate(divide="ignore"):  # s = β₂ = 0 is as unlike as can be: the ceiling
            caps = settings.beta1 / (s + settings.beta2) + settings.beta3
        return np.asarray(np.minimum(caps, settings.ceiling))
    return np.full(s.shape, settings.value if isinstance(settings, FixedCap) else (settings.low + settings.high) / 2)


def draw_caps(settings: RandomCap, count: int) -> Tensor:
    """``[P]`` caps by torch's own generator, which a run seeds and its checkpoints keep: resuming draws the same."""
    return settings.low + (settings.high - settings.low) * torch.rand(count)


def compute_token_gaps(
    rewards: Tensor, ids: Tensor, mask: Tensor, better: Tensor, worse: Tensor, hold: bool = True
) -> tuple[Tensor, Tensor]:
    """Gaps at every token of pairs, and how much each token weighs: a mean over the pair's span.

    The span begins where the two texts diverge and ends with the longer; of two equal texts it is the last token.

    Args:
        rewards: ``[M, T]`` of every token.
        ids: ``[M, T]``.
        mask: ``[M, T]``, padded on the right.
        better: ``[P]``, the row of each pair's better text.
        worse: ``[P]``.
        hold: past its end a text keeps its last token's reward; else the reward of its padding counts, as in PCRM's
            code.

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


def better_sum(gaps: Tensor, weights: Tensor) -> Tensor:
    """Sum over pairs of the weighted mean of −ln σ(gap); ``gaps`` and ``weights`` are ``[P, L]``."""
    return (functional.softplus(-gaps) * weights).sum()


def capped_sum(gaps: Tensor, weights: Tensor, caps: Tensor) -> Tensor:
    """Sum over pairs of the weighted mean of −ln σ(δ − gap); no gradient goes into ``caps [P]``."""
    return (functional.softplus(gaps - caps.detach()[:, None]) * weights).sum()
