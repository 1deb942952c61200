"""How alike two reward models judge the same answers. Pure.

A pair of answers to one prompt has one of three verdicts: the first, the second, neither. Every pair counts, labelled
or not.
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
    """``alike``: share of pairs with one verdict; ``kappa``: Cohen's over the three verdicts (Educational and
    Psychological Measurement 20 (1960) 37-46); ``margins``: Pearson's correlation of the pairs' margins; ``spearman``
    and ``pearson`` of all answers' rewards, across prompts too.

    Args:
        first: rewards of each item's answers.
        second: another model's, of the same answers.
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
            lambda places: compute_kappa(drawn(judged, places), drawn(said, places)), items, len(one)
        ),
        "margins": Figure(compute_pearson(one, other), n=len(one)),
        "spearman": Figure(compute_spearman(x, y), n=len(x)),
        "pearson": Figure(compute_pearson(x, y), n=len(x)),
    }


def compute_kappa(first: Array, second: Array) -> float:
    """Cohen's kappa of two lists of verdicts; NaN where both always say the same one thing, or there are none."""
    if not first.size:
        return math.nan
    verdicts = np.unique(np.concatenate([first, second]))
    chance = float(sum(np.mean(first == verdict) * np.mean(second == verdict) for verdict in verdicts))
    return (float(np.mean(first == second)) - chance) / (1 - chance) if chance < 1 else math.nan


def _alike(first: Array, second: Array) -> float:
    return float(np.mean(first == second)) if first.size else math.nan


def _margins(rewards: Rewards) -> Array:
    return np.array([one - other for row in rewards for one, other in combinations(row, 2)], dtype=np.float64)


def _owners(rewards: Rewards) -> np.typing.NDArray[np.intp]:
    counts = [len(row) * (len(row) - 1) // 2 for row in rewards]
    return np.repeat(np.arange(len(rewards)), counts)
