"""Approximate the difference of two weights by a low-rank term, and tell how much of it the term captures.

The best approximation ΔW ≈ B·A of rank r projects ΔW on its r largest singular directions (Eckart and Young, 1936).
They are the eigenvectors of ΔW·ΔWᵀ or of ΔWᵀ·ΔW, whichever is smaller, and the eigenvalues are the squared singular
values. The energy of a matrix is its squared Frobenius norm. All is computed in float64.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tureen_core.lora import LoraPair

DEFAULT_ENERGY = 0.95
ROUNDING = 1e-9


@dataclass(frozen=True)
class RankChoice:
    """How the ranks of an approximation are chosen, and how much of the energy it must capture.

    Attributes:
        rank: the largest rank of a module. None chooses by energy.
        energy: each module has the smallest rank that captures this share of its energy; by default
            :data:`DEFAULT_ENERGY`.
        accept: the smallest share of all energy that is accepted; by default ``energy``.
    """

    rank: int | None = None
    energy: float | None = None
    accept: float | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.energy is not None:
            raise ValueError("rank and energy exclude each other: give one of them")
        if self.rank is not None and self.rank < 1:
            raise ValueError("rank must be at least 1")
        if not 0 < self.target <= 1 or not 0 <= self.least <= 1:
            raise ValueError("an energy is a share, above 0 and at most 1")

    @property
    def target(self) -> float:
        """The share of a module's energy that chooses its rank, where no rank is given."""
        return DEFAULT_ENERGY if self.energy is None else self.energy

    @property
    def least(self) -> float:
        """The smallest share of all energy that is accepted."""
        return self.target if self.accept is None else self.accept

    def accepts(self, share: float) -> bool:
        """Whether a captured share of all energy is enough, up to rounding."""
        return share >= self.least - ROUNDING


BY_ENERGY = RankChoice()


@dataclass(frozen=True)
class LowRankTerm:
    """A low-rank term with the energy of the matrix that it approximates, and the part of it that the term captures."""

    pair: LoraPair
    energy: float
    captured: float


def approximate_matrix(matrix: Tensor, choice: RankChoice) -> LowRankTerm | None:
    """Approximate a matrix ``[out, in]``; None if it is zero.

    A and B share the singular values, so that both have the same scale. Both are float32 on the CPU.
    """
    whole = matrix.double()
    energy = float(whole.square().sum())
    if energy == 0:
        return None
    wide = whole.shape[0] <= whole.shape[1]
    values, vectors = torch.linalg.eigh(whole @ whole.T if wide else whole.T @ whole)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)  # the largest first
    rank = _choose_rank(values, choice)
    kept = vectors[:, :rank]
    part = kept.T @ whole if wide else whole @ kept
    roots = values[:rank].clamp(min=float(values[0]) * torch.finfo(torch.float64).eps).sqrt().sqrt()
    b, a = (kept * roots, part / roots[:, None]) if wide else (part / roots, (kept * roots).T)
    pair = LoraPair(a.float().cpu().contiguous(), b.float().cpu().contiguous(), 1.0)
    return LowRankTerm(pair, energy, min(float(part.square().sum()), energy))


def _choose_rank(values: Tensor, choice: RankChoice) -> int:
    """Choose a rank by the squared singular values, the largest first."""
    floor = float(values[0]) * len(values) * torch.finfo(torch.float64).eps
    numerical = max(1, int((values > floor).sum()))
    if choice.rank is not None:
        return min(choice.rank, numerical)
    share = values.cumsum(0) / values.sum()
    return min(int((share < choice.target).sum()) + 1, numerical)
