"""Metrics of a reward model: accuracy, margins, length bias and calibration. Pure numpy, float64.

Tables are ``[B, N]``: row b is a prompt, column n one of its answers. Cells without an answer are NaN.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationErrors:
    """Expected, average and maximum calibration error over equal bins of [0, 1], as APO defines them."""

    ece: float
    ace: float
    mce: float


@dataclass(frozen=True)
class RankingMetrics:
    """Figures of one evaluation file. A figure is NaN if it is undefined, as the accuracy without a comparable pair.

    Attributes:
        pairs: the number of comparable pairs.
        accuracy: the share of comparable pairs ranked right; equal rewards count ½.
        best: see :func:`compute_best_rate`.
        margin: the mean gap, the better answer's reward minus the worse one's.
        margin_std: the deviation of the gaps.
        length_correlation: see :func:`compute_length_correlation`.
        reward_mean: the mean of all rewards.
        reward_std: their deviation.
        ece: see :func:`compute_calibration_errors`, also for ``ace`` and ``mce``.
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
        """Return the figures by name."""
        return asdict(self)


def pad_rows(rows: Sequence[Sequence[float] | Array]) -> Array:
    """Make a table ``[B, N]`` of B rows of unequal length. Cells past a row's end are NaN."""
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return table


def compute_gaps(rewards: ArrayLike, scores: ArrayLike) -> Array:
    """Compute the gaps ``[P]`` of all comparable pairs: the better answer's reward minus the worse one's.

    Answers with equal scores, or without a score, make no pair.
    """
    r, s = (np.asarray(each, dtype=np.float64) for each in (rewards, scores))
    return np.asarray((r[:, :, None] - r[:, None, :])[s[:, :, None] > s[:, None, :]])


def compute_accuracy(gaps: Array) -> float:
    """Compute the share of positive gaps. A gap of 0 counts ½, as in DSP's total accuracy and in RewardBench."""
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0))) if gaps.size else float("nan")


def compute_calibration_errors(gaps: Array, bins: int = 10) -> CalibrationErrors:
    """Compute APO's calibration errors of the probability p = σ(gap). Each pair counts as (p, 1) and as (1 − p, 0).

    In a bin with m of the M counts, S is the sum of p and Y the sum of outcomes. ECE is Σ|S − Y| / M, ACE the mean of
    |S − Y| / m over the bins that are not empty, and MCE the maximum of these.
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
    """Find the bin of each probability, among ``bins`` = n equal parts of [0, 1]: k/n < p ≤ (k+1)/n; 0 is in bin 0."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p, side="left")


def mirror_pairs(gaps: Array) -> tuple[Array, Array]:
    """Return the probabilities and outcomes of each pair in both orders: (p, 1) for all pairs, then (1 − p, 0)."""
    p = 1 / (1 + np.exp(-np.clip(gaps, -500, 500)))
    return np.concatenate([p, 1 - p]), np.concatenate([np.ones_like(p), np.zeros_like(p)])


def compute_best_rate(rewards: Array, scores: Array) -> float:
    """Compute the share of prompts whose highest reward belongs to an answer with the best score.

    If several answers have the highest reward, the prompt counts with the share of best ones among them. A prompt
    counts only if its answers have different scores.
    """
    rates = []
    for reward, score in zip(rewards, scores, strict=True):
        known = ~np.isnan(score) & ~np.isnan(reward)
        if known.sum() > 1 and np.ptp(score[known]) > 0:
            top = reward[known] == reward[known].max()
            rates.append(float(np.mean(score[known][top] == score[known].max())))
    return float(np.mean(rates)) if rates else float("nan")


def compute_length_correlation(rewards: Array, lengths: Array) -> float:
    """Compute Pearson's correlation of reward and length, both centred within each prompt; NaN if one is constant."""
    x = (rewards - np.nanmean(rewards, axis=1, keepdims=True)).ravel()
    y = (lengths - np.nanmean(lengths, axis=1, keepdims=True)).ravel()
    known = ~np.isnan(x) & ~np.isnan(y)
    x, y = x[known], y[known]
    norm = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / norm) if norm > 0 else float("nan")


def compute_ranking_metrics(rewards: ArrayLike, scores: ArrayLike, lengths: ArrayLike) -> RankingMetrics:
    """Compute all figures of one file from its tables of rewards, scores and token lengths, ``[B, N]`` each."""
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
