"""Agreement of two reward models on the same answers. Pure.

The verdict on a pair of answers to one prompt is that the first is better, that the second is better, or that neither
is. Every pair counts, also one without a label.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from tureen_train.measures.correlation import compute_pearson, compute_spearman
from tureen_train.measures.intervals import Figure, Places, bootstrap_interval
from tureen_train.measures.metrics import Array

Rewards = Sequence[Sequence[float]]


def measure_agreement(first: Rewards, second: Rewards) -> dict[str, Figure]:
    """Measure the agreement of two models.

    Args:
        first: the first model's rewards: a row for each item, a value for each answer.
        second: the second model's rewards of the same answers.

    Returns:
        ``alike``: the share of pairs on which both give the same verdict. ``kappa``: Cohen's kappa of the three
        verdicts (Educational and Psychological Measurement 20 (1960) 37-46). ``margins``: Pearson's correlation of the
        pairs' margins. For both each pair counts in both orders, so that they do not depend on which answer stands
        first, as in files of chosen and rejected. ``spearman`` and ``pearson``: the correlations of all rewards, over
        all prompts together.
    """
    one, other, owner = _margins(first), _margins(second), _owners(first)
    items = len(first)

    def drawn(values: Array, places: Places) -> Array:
        return np.repeat(values, np.bincount(places, minlength=items)[owner])

    judged, said = np.sign(one), np.sign(other)
    x, y = (np.array([reward for row in rows for reward in row], dtype=np.float64) for rows in (first, second))
    return {
        "alike": bootstrap_interval(lambda places: _alike(drawn(judged, places), drawn(said, places)), items, len(one)),
        "kappa": bootstrap_interval(
            lambda places: compute_symmetric_kappa(drawn(judged, places), drawn(said, places)), items, len(one)
        ),
        "margins": Figure(compute_pearson(_both_orders(one), _both_orders(other)), n=len(one)),
        "spearman": Figure(compute_spearman(x, y), n=len(x)),
        "pearson": Figure(compute_pearson(x, y), n=len(x)),
    }


def compute_kappa(first: Array, second: Array) -> float:
    """Compute Cohen's kappa of two lists of verdicts; NaN if all verdicts are equal, or there are none."""
    if not first.size:
        return math.nan
    verdicts = np.unique(np.concatenate([first, second]))
    chance = float(sum(np.mean(first == verdict) * np.mean(second == verdict) for verdict in verdicts))
    return (float(np.mean(first == second)) - chance) / (1 - chance) if chance < 1 else math.nan


def compute_symmetric_kappa(first: Array, second: Array) -> float:
    """Compute Cohen's kappa of verdicts [P] with each pair in both orders; NaN if all verdicts are ties."""
    return compute_kappa(_both_orders(first), _both_orders(second))


def _both_orders(values: Array) -> Array:
    return np.concatenate([values, -values])


def _alike(first: Array, second: Array) -> float:
    return float(np.mean(first == second)) if first.size else math.nan


def _margins(rewards: Rewards) -> Array:
    return np.array([one - other for row in rewards for one, other in combinations(row, 2)], dtype=np.float64)


def _owners(rewards: Rewards) -> np.typing.NDArray[np.intp]:
    counts = [len(row) * (len(row) - 1) // 2 for row in rewards]
    return np.repeat(np.arange(len(rewards)), counts)
