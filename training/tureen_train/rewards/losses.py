"""Losses of reward training: pure functions on rewards, scores and groups.

Rows are answers, flat over the batch; ``group[i]`` says whose prompt row i answers. No padding rows exist, and a row
with a NaN score takes part in no comparison.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def find_comparable(scores: Tensor, group: Tensor) -> Tensor:
    """Which ordered pairs compare: ``[M, M]``, true where i and j answer one prompt and i is scored above j.

    Args:
        scores: ``[M]``, larger is better; ties and NaN compare with nothing.
        group: ``[M]`` prompt numbers.
    """
    return (group[:, None] == group[None, :]) & (scores[:, None] > scores[None, :])


def ranking_loss(rewards: Tensor, scores: Tensor, group: Tensor) -> Tensor:
    """DSP's ranking loss over N answers (arXiv 2309.03126): mean over comparable pairs of −ln σ(r_better − r_worse).

    A mean over all pairs of the batch, so a prompt with more answers weighs more; ties are ignored. With two answers
    it is Bradley-Terry's loss.

    Args:
        rewards: ``[M]`` float32.
        scores: ``[M]``.
        group: ``[M]``.

    Returns:
        A scalar; 0, with a gradient of 0, where nothing compares.
    """
    return ranking_sum(rewards, scores, group) / find_comparable(scores, group).sum().clamp(min=1)


def ranking_sum(rewards: Tensor, scores: Tensor, group: Tensor) -> Tensor:
    """:func:`ranking_loss` before its division: the sum over comparable pairs."""
    if rewards.ndim != 1 or rewards.shape != scores.shape or rewards.shape != group.shape:
        shapes = [list(each.shape) for each in (rewards, scores, group)]
        raise ValueError(f"rewards, scores and group must be three vectors of one length, not {shapes}")
    gaps = rewards[:, None] - rewards[None, :]
    return (functional.softplus(-gaps) * find_comparable(scores, group)).sum()


def imitation_loss(nll: Tensor, keep: Tensor) -> Tensor:
    """DSP's LM loss: mean of the kept texts' token-mean negative log-likelihood ``[M]``; 0 where none is kept."""
    return imitation_sum(nll, keep) / keep.sum().clamp(min=1)


def imitation_sum(nll: Tensor, keep: Tensor) -> Tensor:
    """:func:`imitation_loss` before its division."""
    return (nll * keep.to(nll.dtype)).sum()


def normalise_scores(scores: Sequence[float]) -> list[float]:
    """DSP's s / (max s + 1e-5), what the imitation threshold is compared with.

    All 0 where the largest is not positive: DSP's division explodes there. NaN stays NaN.
    """
    known = [score for score in scores if score == score]
    top = max(known, default=0.0)
    if top <= 0:
        return [score * 0.0 for score in scores]
    return [score / (top + 1e-5) for score in scores]


def require_finite(loss: Tensor) -> Tensor:
    """The loss, or an error that says training has diverged: a NaN must not reach the weights.

    Raises:
        FloatingPointError: the loss is NaN or infinite.
    """
    if not bool(torch.isfinite(loss)):
        raise FloatingPointError(f"the loss is {loss.item()}: lower the learning rate or check the data's scores")
    return loss
