"""The rules of merging, against float64 loops of our own and against PEFT where it means the same."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from peft.utils import merge_utils
from torch import Tensor

from tureen_train.merging.rules import RULES, prune_differences, sum_agreeing, sum_weighted


def draw(experts: int = 3) -> Tensor:
    return torch.randn(experts, 6, 5, generator=torch.Generator().manual_seed(3))


def agree(deltas: Tensor, weights: Sequence[float]) -> np.ndarray:
    """TIES' election and sum, value by value."""
    out = np.zeros(deltas.shape[1:])
    for place in np.ndindex(*out.shape):
        own = [weight * float(delta[place]) for weight, delta in zip(weights, deltas, strict=True)]
        sign = 1.0 if sum(own) >= 0 else -1.0
        kept = [(value, abs(weight)) for value, weight in zip(own, weights, strict=True) if value * sign > 0]
        if kept:
            share = sum(weight for _, weight in kept)
            out[place] = sum(abs(weight) for weight in weights) * sum(value for value, _ in kept) / share
    return out


def test_a_weighted_sum_by_hand() -> None:
    deltas = torch.tensor([[[1.0, 2.0]], [[10.0, -4.0]]])
    assert sum_weighted(deltas, torch.tensor([0.5, 2.0])).tolist() == [[20.5, -7.0]]


def test_signs_are_elected_by_hand() -> None:
    deltas = torch.tensor([[[1.0, 3.0, 0.0]], [[-3.0, 1.0, 2.0]]])
    # the first value's sign is −, and only −3 has it; both have the second's; a zero agrees with nothing
    assert sum_agreeing(deltas, torch.tensor([0.5, 0.5])).tolist() == [[-3.0, 2.0, 2.0]]


@pytest.mark.parametrize("weights", [(1 / 3, 1 / 3, 1 / 3), (0.6, 0.3, 0.1), (1.0, 1.0, 1.0), (1.0, -0.5, 0.2)])
def test_agreeing_values_are_those_of_a_loop_in_float64(weights: Sequence[float]) -> None:
    found = sum_agreeing(draw(), torch.tensor(weights))
    np.testing.assert_allclose(found.numpy(), agree(draw(), weights), atol=1e-6)


def test_with_equal_weights_ties_is_pefts() -> None:
    deltas = draw()
    theirs = merge_utils.ties(list(deltas), torch.ones(3), 0.4)
    torch.testing.assert_close(RULES["ties"](deltas, torch.full((3,), 1 / 3), 0.4), theirs)


@pytest.mark.parametrize("rule", ["dare", "magnitude"])
def test_linear_rules_are_pefts(rule: str) -> None:
    deltas, weights = draw(), torch.tensor([0.6, 0.3, 0.1])
    peft = merge_utils.dare_linear if rule == "dare" else merge_utils.magnitude_prune
    torch.manual_seed(1)
    theirs = peft(list(deltas), weights, 0.4)
    torch.manual_seed(1)
    torch.testing.assert_close(RULES[rule](deltas, weights, 0.4), theirs)  # type: ignore[index]


def test_random_pruning_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    mean = torch.stack([prune_differences(draw(), 0.5, "random") for _ in range(4000)]).mean(0)
    torch.testing.assert_close(mean, draw(), atol=0.15, rtol=0)


@pytest.mark.parametrize("rule", list(RULES))
def test_one_whole_expert_stays_itself(rule: str) -> None:
    torch.testing.assert_close(RULES[rule](draw(1), torch.ones(1), 1.0), draw(1)[0])  # type: ignore[index]
