"""ArmoRM's verbosity transform (arXiv 2406.12845, section 3): what it takes to rid rewards of length's favour. Pure."""

import torch
from torch import Tensor

from tureen_train.measures.correlation import compute_spearman
from tureen_train.measures.metrics import Array

PENALTIES = (0.0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, *(step / 20 for step in range(4, 20)))


def choose_penalties(rewards: Array, verbosity: int, threshold: float) -> list[float]:
    """λ_k of each reward: the smallest of :data:`PENALTIES` with Spearman(R_k − λR_v, R_v) ≤ ``threshold``.

    1 where none reaches it, and for verbosity itself.

    Args:
        rewards: ``[n, K]`` of the reference set.
        verbosity: v, its column.
        threshold: 0.03 as published.
    """
    wordy = rewards[:, verbosity]
    return [
        1.0 if column == verbosity else _smallest(rewards[:, column], wordy, threshold)
        for column in range(rewards.shape[1])
    ]


def _smallest(reward: Array, wordy: Array, threshold: float) -> float:
    """A correlation that is not defined, since something never varies, is none."""
    fits = (penalty for penalty in PENALTIES if not compute_spearman(reward - penalty * wordy, wordy) > threshold)
    return next(fits, 1.0)


def make_verbosity_transform(penalties: list[float], verbosity: int) -> Tensor:
    """M ``[K, K]`` with (R M)_k = R_k − λ_k R_v: the identity, its row v less the penalties."""
    matrix = torch.eye(len(penalties))
    matrix[verbosity] -= torch.tensor(penalties)
    return matrix
