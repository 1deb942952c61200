"""PPO's losses against numbers by hand, plain Python in float64, and finite differences."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tureen_train.policies.ppo.losses import (
    Clips,
    Tokens,
    Watched,
    average_sums,
    compute_policy_losses,
    compute_value_losses,
    explain_variance,
    is_usable,
    sum_losses,
)

CLIPS = Clips(ratio=0.2, value=0.2, weight=0.1)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --------------------------------------------------------------------------- policy


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.1, 2.0, -2.2, False),
        (1.5, 2.0, -2.4, True),  # already more likely: no further
        (0.5, 2.0, -1.0, False),  # became less likely though it was good: the whole way back counts
        (0.5, -2.0, 1.6, True),  # already less likely
        (1.5, -2.0, 3.0, False),
    ],
)
def test_policy_losses_by_hand(ratio: float, advantage: float, loss: float, clipped: bool) -> None:
    losses, beyond = compute_policy_losses(doubles(ratio), doubles(advantage), 0.2)
    assert losses.tolist() == [pytest.approx(loss)]
    assert beyond.tolist() == [clipped]


@pytest.mark.parametrize(("ratio", "advantage", "slope"), [(1.5, 2.0, 0.0), (0.5, -2.0, 0.0), (1.5, -2.0, 2.0)])
def test_a_clipped_token_has_no_gradient(ratio: float, advantage: float, slope: float) -> None:
    given = doubles(ratio).requires_grad_()
    compute_policy_losses(given, doubles(advantage), 0.2)[0].sum().backward()
    assert given.grad is not None
    assert given.grad.tolist() == [slope]


# --------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("value", "before", "reward", "loss", "clipped"),
    [
        (1.0, 1.0, 2.0, 0.5, False),
        (1.1, 1.0, 2.0, 0.405, False),
        (1.5, 1.0, 2.0, 0.32, True),  # moved too far toward the return: judged as if it were at 1.2
        (0.5, 1.0, 2.0, 1.125, False),  # moved away
        (3.0, 1.0, 1.1, 1.805, False),  # overshot: the farther one counts
    ],
)
def test_value_losses_by_hand(value: float, before: float, reward: float, loss: float, clipped: bool) -> None:
    losses, beyond = compute_value_losses(doubles(value), doubles(before), doubles(reward), 0.2)
    assert losses.tolist() == [pytest.approx(loss)]
    assert beyond.tolist() == [clipped]


# --------------------------------------------------------------------------- sums

tokens = st.lists(st.tuples(*[st.floats(-2, 2)] * 6), min_size=1, max_size=8)


@settings(deadline=None, max_examples=100)
@given(tokens)
def test_sums_are_those_of_a_loop(rows: list[tuple[float, ...]]) -> None:
    logprobs, values, old, before, advantages, returns = (doubles(*column) for column in zip(*rows, strict=True))
    loss, watched = sum_losses(logprobs, values, Tokens(old, before, advantages, returns), CLIPS)
    policy = value = moved = apart = ratios = 0.0
    for new, now, was, then, advantage, target in rows:
        ratio = math.exp(new - was)
        policy += max(-advantage * ratio, -advantage * min(max(ratio, 0.8), 1.2))
        near = min(max(now, then - 0.2), then + 0.2)
        value += 0.5 * max((now - target) ** 2, (near - target) ** 2)
        moved, apart, ratios = moved + was - new, apart + 0.5 * (was - new) ** 2, ratios + ratio
    assert float(loss) == pytest.approx(policy + 0.1 * value, rel=1e-9, abs=1e-9)
    expected = {"policy_loss": policy, "value_loss": value, "moved": moved, "approx_kl": apart, "ratio": ratios}
    for name, number in expected.items():
        assert float(watched._asdict()[name]) == pytest.approx(number, rel=1e-9, abs=1e-9)
    assert float(watched.tokens) == len(rows)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Away from the corners of the clips, where there is none."""
    torch.manual_seed(0)
    old = Tokens(*torch.randn(4, 12, dtype=torch.float64))
    logprobs = (old.logprobs + 0.3 * torch.randn(12, dtype=torch.float64)).requires_grad_()
    values = (old.values + 0.3 * torch.randn(12, dtype=torch.float64)).requires_grad_()
    clipped = sum_losses(logprobs, values, old, CLIPS)[1]
    assert 0 < clipped.clipped < 12
    assert 0 < clipped.value_clipped < 12
    assert torch.autograd.gradcheck(lambda new, now: sum_losses(new, now, old, CLIPS)[0], (logprobs, values))


def test_at_the_first_pass_the_gradient_is_that_of_the_policy_gradient() -> None:
    """With a ratio of 1 it is −A for log π, and the weighted error for the value."""
    old = Tokens(doubles(-1.0, -2.0), doubles(0.5, 0.0), doubles(3.0, -1.0), doubles(1.5, 1.0))
    logprobs, values = old.logprobs.clone().requires_grad_(), old.values.clone().requires_grad_()
    sum_losses(logprobs, values, old, CLIPS)[0].backward()
    assert logprobs.grad is not None
    assert values.grad is not None
    assert logprobs.grad.tolist() == [-3.0, 1.0]
    assert values.grad.tolist() == pytest.approx([-0.1, -0.1])


# --------------------------------------------------------------------------- guards and figures


def watched(ratios: Sequence[float], **changes: float) -> Watched:
    sums = dict.fromkeys(Watched._fields, 0.0)
    sums |= {"tokens": float(len(ratios)), "ratio": sum(ratios), **changes}
    return Watched(**{name: torch.tensor(value) for name, value in sums.items()})


@pytest.mark.parametrize(
    ("found", "usable"),
    [
        (watched([1.0, 1.2]), True),
        (watched([10.0, 10.0]), True),
        (watched([1.0, 30.0]), False),
        (watched([1.0, math.inf]), False),
        (watched([1.0], policy_loss=math.nan), False),
        (watched([1.0], value_loss=math.inf), False),
    ],
)
def test_what_may_be_learnt_from(found: Watched, usable: bool) -> None:
    assert is_usable(found, 10.0) is usable


def test_a_huge_gap_of_log_probabilities_is_caught_though_its_advantage_is_0() -> None:
    old = Tokens(doubles(-200.0), doubles(0.0), doubles(0.0), doubles(0.0))
    found = sum_losses(doubles(0.0).float(), doubles(0.0).float(), Tokens(*(each.float() for each in old)), CLIPS)[1]
    assert not is_usable(found, 10.0)


def test_sums_are_averaged_over_the_tokens_of_all_micro_batches() -> None:
    sums = torch.stack([torch.tensor(list(watched([1.0, 1.5], clipped=1.0))), torch.tensor(list(watched([0.5])))])
    found = average_sums(sums.sum(0))
    assert found == {**dict.fromkeys(found, 0.0), "ratio": pytest.approx(1.0), "clip_share": pytest.approx(1 / 3)}
    assert set(average_sums(torch.zeros(8)).values()) == {0.0}


def test_explained_variance_by_hand() -> None:
    """The returns 1 and 3 vary by 1, and the errors 0 and 1 by ¼."""
    assert explain_variance(doubles(1.0, 2.0), doubles(1.0, 3.0)) == pytest.approx(0.75)
    assert explain_variance(doubles(1.0, 3.0), doubles(1.0, 3.0)) == 1.0
    assert explain_variance(doubles(5.0, 3.0), doubles(1.0, 3.0)) < 0
    assert math.isnan(explain_variance(doubles(5.0, 3.0), doubles(1.0, 1.0)))
