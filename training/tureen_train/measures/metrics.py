"""What a reward model is judged by: accuracy, margins, length bias, calibration. Pure numpy, float64.

All take ``[B, N]`` tables: row b is a prompt, column n an answer, NaN where there is none.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationErrors:
    """Expected, average and maximum calibration error over equal bins of [0, 1] (APO's definitions)."""

    ece: float
    ace: float
    mce: float


@dataclass(frozen=True)
class RankingMetrics:
    """Figures of one evaluation file.

    ``accuracy``: share of comparable pairs ranked right, equal rewards counting one half. ``best``: share of prompts
    whose best-scored answer has the highest reward (ties share). ``margin``: mean reward gap; ``length_correlation``:
    Pearson's between reward and length within prompts. NaN where undefined (no comparable pair).
    """

    pairs: int
    accuracy: float
    best: float
    margin: float
    margin_std: float
    length_correlation: float
    reward_mean: float
    reward_std: float
    ece: float
    ace: float
    mce: float

    def plain(self) -> dict[str, float]:
        """As a dictionary of numbers."""
        return asdict(self)


def pad_rows(rows: Sequence[Sequence[float] | Array]) -> Array:
    """Make a table ``[B, N]`` of B rows of unequal length. Cells past a row's end are NaN."""
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return table


def compute_gaps(rewards: ArrayLike, scores: ArrayLike) -> Array:
    """The better answer's reward minus the worse one's for every pair of one prompt, ties and absent answers aside."""
    r, s = (np.asarray(each, dtype=np.float64) for each in (rewards, scores))
    return np.asarray((r[:, :, None] - r[:, None, :])[s[:, :, None] > s[:, None, :]])


def compute_accuracy(gaps: Array) -> float:
    """Share of positive gaps, equal rewards counting one half (DSP's total accuracy, RewardBench's rule)."""
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0))) if gaps.size else float("nan")


def compute_calibration_errors(gaps: Array, bins: int = 10) -> CalibrationErrors:
    """APO's calibration errors of p = σ(gap), each pair counted both ways round: (p, 1) and (1 − p, 0).

    With S, Y, m the sums of p, of outcomes, and the count in a bin and M pairs in all: ECE = Σ|S − Y| / M, ACE the
    mean of |S − Y| / m over non-empty bins, MCE their maximum.
    """
    if not gaps.size:
        return CalibrationErrors(0.0, 0.0, 0.0)
    p, outcome = mirror_pairs(gaps)
    index = find_bin(p, bins)
    count = np.bincount(index, minlength=bins)
    off = np.abs(np.bincount(index, p, bins) - np.bincount(index, outcome, bins))
    share = off[count > 0] / count[count > 0]
    return CalibrationErrors(float(off.sum() / p.size), float(share.mean()), float(share.max()))


def find_bin(p: Array, bins: int) -> NDArray[np.intp]:
    """Which of ``bins`` equal parts of [0, 1] each probability falls into: k/n < p ≤ (k+1)/n, and 0 into the first."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p, side="left")


def mirror_pairs(gaps: Array) -> tuple[Array, Array]:
    """Probabilities and outcomes of each pair in both orders."""
    p = 1 / (1 + np.exp(-np.clip(gaps, -500, 500)))
    return np.concatenate([p, 1 - p]), np.concatenate([np.ones_like(p), np.zeros_like(p)])


def compute_best_rate(rewards: Array, scores: Array) -> float:
    """Share of prompts whose highest reward falls on a best-scored answer; rewards that tie for highest share it."""
    rates = []
    for reward, score in zip(rewards, scores, strict=True):
        known = ~np.isnan(score) & ~np.isnan(reward)
        if known.sum() > 1 and np.ptp(score[known]) > 0:
            top = reward[known] == reward[known].max()
            rates.append(float(np.mean(score[known][top] == score[known].max())))
    return float(np.mean(rates)) if rates else float("nan")


def compute_length_correlation(rewards: Array, lengths: Array) -> float:
    """Pearson's correlation of reward with length, both centred within their prompt; NaN where either never varies."""
    x = (rewards - np.nanmean(rewards, axis=1, keepdims=True)).ravel()
    y = (lengths - np.nanmean(lengths, axis=1, keepdims=True)).ravel()
    known = ~np.isnan(x) & ~np.isnan(y)
    x, y = x[known], y[known]
    norm = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / norm) if norm > 0 else float("nan")


def compute_ranking_metrics(rewards: ArrayLike, scores: ArrayLike, lengths: ArrayLike) -> RankingMetrics:
    """All figures of one file from its ``[B, N]`` tables of rewards, scores and token lengths."""
    r, s, n = (np.asarray(each, dtype=np.float64) for each in (rewards, scores, lengths))
    gaps = compute_gaps(r, s)
    errors = compute_calibration_errors(gaps)
    known = r[~np.isnan(r)]
    return RankingMetrics(
        pairs=int(gaps.size),
        accuracy=compute_accuracy(gaps),
        best=compute_best_rate(r, s),
        margin=float(gaps.mean()) if gaps.size else float("nan"),
        margin_std=float(gaps.std()) if gaps.size else float("nan"),
        length_correlation=compute_length_correlation(r, n),
        reward_mean=float(known.mean()) if known.size else float("nan"),
        reward_std=float(known.std()) if known.size else float("nan"),
        ece=errors.ece,
        ace=errors.ace,
        mce=errors.mce,
    )
