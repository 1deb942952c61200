"""ArmoRM's verbosity transform, recomputed from its definition in float64."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tureen_train.rewards.verbosity import PENALTIES, choose_penalties, make_verbosity_transform

PUBLISHED = [0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, *[0.2 + 0.05 * step for step in range(16)]]


def rewards() -> np.ndarray:
    """A verbosity in the middle; one reward that follows it a little, one not at all, one against it, one wholly."""
    rng = np.random.default_rng(2)
    wordy, noise = rng.normal(size=400), rng.normal(size=(400, 4))
    columns = [0.3 * wordy + noise[:, 0], noise[:, 1] - 0.1 * wordy, wordy, -wordy + noise[:, 2], 5 * wordy]
    return np.stack(columns, axis=1)


def test_the_penalties_are_the_24_published() -> None:
    assert len(PENALTIES) == 24
    assert pytest.approx(PUBLISHED) == PENALTIES


@pytest.mark.parametrize("threshold", [0.03, 0.2, -0.5])
def test_each_reward_pays_the_smallest_penalty_that_reaches_the_threshold(threshold: float) -> None:
    table = rewards()
    found = choose_penalties(table, 2, threshold)
    for column in (0, 1, 3, 4):
        reached = [
            penalty
            for penalty in PENALTIES
            if spearmanr(table[:, column] - penalty * table[:, 2], table[:, 2]).statistic <= threshold
        ]
        assert found[column] == (min(reached) if reached else 1.0)
    assert found[2] == 1.0


def test_a_reward_that_is_verbosity_pays_all_and_one_against_it_nothing() -> None:
    found = choose_penalties(rewards(), 2, 0.03)
    assert (found[3], found[4]) == (0.0, 1.0)
    assert 0.1 < found[0] < 0.6


def test_the_transform_takes_each_share_of_verbosity_out() -> None:
    """R'_k = R_k − λ_k R_v, and verbosity's own column is 0."""
    table, shares = torch.from_numpy(rewards()).float(), [0.25, 0.0, 1.0, 0.1, 1.0]
    matrix = make_verbosity_transform(shares, 2)
    expected = table - torch.tensor(shares) * table[:, 2:3]
    torch.testing.assert_close(table @ matrix, expected)
    assert (table @ matrix)[:, 2].abs().max() == 0


def test_rewards_that_never_vary_pay_nothing() -> None:
    table = np.stack([np.ones(9), np.ones(9)], axis=1)
    assert choose_penalties(table, 1, 0.03) == [0.0, 1.0]
