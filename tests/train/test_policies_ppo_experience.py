"""The experience of a step, put together from parts that are tested on their own."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tureen_train.config import PpoPolicy
from tureen_train.policies.ppo.actor_critic import Figures
from tureen_train.policies.ppo.experience import find_finite, make_experience, make_mask

LENGTHS = [2, 1]
MASK = torch.tensor([[True, True], [True, False]])
REFERENCE = torch.tensor([[-1.5, -1.0], [-0.25, 0.0]])


def policy(**changes: Any) -> PpoPolicy:
    return PpoPolicy(method="ppo", whiten_advantages=False, trace=1.0, **changes)


def figures() -> Figures:
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]])
    return Figures(logprobs, torch.tensor([[0.5, 1.0], [-1.0, 0.0]]), torch.tensor([[1.0, 2.0], [6.0, 0.0]]))


def test_an_experience_by_hand() -> None:
    """kl .1; the tokens' rewards are −.05, .1 + 1 and .025 − 2."""
    found = make_experience(figures(), REFERENCE, [1.0, -2.0], LENGTHS, policy(), 0.1)
    assert found.known.returns.tolist() == [pytest.approx([1.05, 1.1]), pytest.approx([-1.975, 0.0])]
    assert found.known.advantages.tolist() == [pytest.approx([0.55, 0.1]), pytest.approx([-0.975, 0.0])]
    assert found.kl == pytest.approx(((0.5 - 1.0) + -0.25) / 2)
    assert found.entropy == pytest.approx(3.0)
    assert found.known.values.equal(figures().values)


def spread(values: Tensor) -> float:
    return float(values[MASK].std())


def test_whitened_advantages_have_mean_0_and_deviation_1_and_the_returns_stay() -> None:
    plain = make_experience(figures(), REFERENCE, [1.0, -2.0], LENGTHS, policy(), 0.1)
    changed = PpoPolicy(method="ppo", whiten_advantages=True, trace=1.0)
    found = make_experience(figures(), REFERENCE, [1.0, -2.0], LENGTHS, changed, 0.1)
    assert float(found.known.advantages[MASK].mean()) == pytest.approx(0, abs=1e-6)
    assert spread(found.known.advantages) == pytest.approx(1, rel=1e-5)
    assert found.known.returns.equal(plain.known.returns)
    assert found.explained == plain.explained


def test_whitened_rewards_have_deviation_1_and_keep_their_mean() -> None:
    plain = make_experience(figures(), REFERENCE, [1.0, -2.0], LENGTHS, policy(gamma=0.001), 0.1)
    found = make_experience(figures(), REFERENCE, [1.0, -2.0], LENGTHS, policy(gamma=0.001, whiten_rewards=True), 0.1)
    assert spread(found.known.returns) == pytest.approx(1, rel=1e-2)
    assert spread(plain.known.returns) > 1.5
    assert float(found.known.returns[MASK].mean()) == pytest.approx(float(plain.known.returns[MASK].mean()), abs=1e-2)


def test_answers_with_a_figure_that_is_no_number_are_found() -> None:
    whole = figures()
    assert find_finite(whole, REFERENCE) == [True, True]
    whole.values[1, 0] = math.nan
    assert find_finite(whole, REFERENCE) == [True, False]
    reference = REFERENCE.clone()
    reference[0, 1] = -math.inf
    assert find_finite(whole, reference) == [False, False]


def test_the_mask_of_answers() -> None:
    assert make_mask([1, 3], 3).tolist() == [[True, False, False], [True, True, True]]
