"""ArmoRM's verbosity transform (arXiv 2406.12845, section 3): it removes length's share in rewards. Pure."""

import torch
from torch import Tensor

from tureen_train.measures.correlation import compute_spearman
from tureen_train.measures.metrics import Array

PENALTIES = (0.0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, *(step / 20 for step in range(4, 20)))


def choose_penalties(rewards: Array, verbosity: int, threshold: float) -> list[float]:
    """Choose λ_k for each reward: the smallest of :data:`PENALTIES` with Spearman(R_k − λR_v, R_v) ≤ ``threshold``.

    It is 1 if none reaches the threshold, and for verbosity itself.

    Args:
        rewards: ``[n, K]``, of the reference set.
        verbosity: v, the column of the verbosity reward.
        threshold: 0.03 in the paper.
    """
    wordy = rewards[:, verbosity]
    return [
        1.0 if column == verbosity else _smallest(rewards[:, column], wordy, threshold)
        for column in range(rewards.shape[1])
    ]


def _smallest(reward: Array, wordy: Array, threshold: float) -> float:
    """The smallest penalty that fits. An undefined correlation, of a constant, counts as none."""
    fits = (penalty for penalty in PENALTIES if not compute_spearman(reward - penalty * wordy, wordy) > threshold)
    return next(fits, 1.0)


def make_verbosity_transform(penalties: list[float], verbosity: int) -> Tensor:
    """Make M ``[K, K]`` with (R M)_k = R_k − λ_k R_v: the identity, minus the penalties in row v."""
    matrix = torch.eye(len(penalties))
    matrix[verbosity] -= torch.tensor(penalties)
    return matrix
