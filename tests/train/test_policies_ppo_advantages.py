"""Token rewards, GAE and whitening against numbers by hand, loops in float64, and TRL's formula."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tureen_train.policies.ppo.advantages import compute_token_rewards, estimate_advantages, whiten_tokens

Rows = Sequence[Sequence[float]]


def padded(rows: Rows, pad: float = 0.0) -> Tensor:
    """Rows in float64, padded on the right by ``pad``."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], dtype=torch.float64)


def mask_of(rows: Rows) -> Tensor:
    return padded([[1.0] * len(row) for row in rows]).bool()


# --------------------------------------------------------------------------- rewards of tokens


def test_rewards_of_tokens_by_hand() -> None:
    """kl .1; the first answer has two tokens and the score 1, the second one token and the score −2."""
    logprobs, reference = [[-1.0, -2.0], [-0.5]], [[-1.5, -1.0], [-0.5]]
    found = compute_token_rewards(
        padded(logprobs), padded(reference), torch.tensor([1.0, -2.0]), mask_of(logprobs), kl=0.1
    )
    assert found.tolist() == [pytest.approx([-0.05, 1.1]), pytest.approx([-2.0, 0.0])]


def test_what_stands_on_the_padding_never_counts() -> None:
    rows = [[-1.0, -2.0], [-0.5]]
    clean = compute_token_rewards(padded(rows), padded(rows), torch.ones(2), mask_of(rows), 0.1)
    dirty = compute_token_rewards(padded(rows, math.nan), padded(rows, math.inf), torch.ones(2), mask_of(rows), 0.1)
    assert dirty.equal(clean)
    values = padded(rows, math.nan)
    advantages, returns = estimate_advantages(padded(rows, math.nan), values, mask_of(rows), 1.0, 0.95)
    assert bool(advantages.isfinite().all() and returns.isfinite().all())


# --------------------------------------------------------------------------- GAE


def test_advantages_by_hand() -> None:
    """γ .5, λ .5; r = 1, 0, 2 and V = .5, 1, −1: δ = (1, −1.5, 3), A₃ = 3, A₂ = −1.5 + 3/4, A₁ = 1 − .75/4."""
    rewards, values = [[1.0, 0.0, 2.0]], [[0.5, 1.0, -1.0]]
    advantages, returns = estimate_advantages(padded(rewards), padded(values), mask_of(values), gamma=0.5, trace=0.5)
    assert advantages.tolist() == [pytest.approx([0.8125, -0.75, 3.0])]
    assert returns.tolist() == [pytest.approx([1.3125, 0.25, 2.0])]


def loop(rewards: Sequence[float], values: Sequence[float], gamma: float, trace: float) -> list[float]:
    """The definition of GAE as the sum of discounted δ (arXiv 1506.02438, equation 16)."""
    deltas = [
        reward + gamma * (values[place + 1] if place + 1 < len(values) else 0.0) - values[place]
        for place, reward in enumerate(rewards)
    ]
    return [
        sum((gamma * trace) ** (later - place) * deltas[later] for later in range(place, len(deltas)))
        for place in range(len(deltas))
    ]


answers = st.lists(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=6), min_size=1, max_size=4
)


@settings(deadline=None, max_examples=100)
@given(answers, st.floats(0.5, 1), st.floats(0, 1))
def test_advantages_are_the_sums_of_the_definition(
    rows: list[list[tuple[float, float]]], gamma: float, trace: float
) -> None:
    rewards, values = ([[each[side] for each in row] for row in rows] for side in (0, 1))
    advantages, returns = estimate_advantages(padded(rewards), padded(values), mask_of(values), gamma, trace)
    for row, (own, value) in enumerate(zip(rewards, values, strict=True)):
        expected = loop(own, value, gamma, trace)
        size = len(own)
        assert advantages[row, :size].tolist() == pytest.approx(expected, abs=1e-9)
        sums = [left + right for left, right in zip(expected, value, strict=True)]
        assert returns[row, :size].tolist() == pytest.approx(sums, abs=1e-9)
        assert advantages[row, size:].tolist() == returns[row, size:].tolist() == [0.0] * (advantages.shape[1] - size)


def test_without_discount_and_with_full_trace_the_return_is_the_sum_of_what_follows() -> None:
    rewards, values = [[0.5, -1.0, 2.0]], [[3.0, -7.0, 0.25]]
    _, returns = estimate_advantages(padded(rewards), padded(values), mask_of(values), 1.0, 1.0)
    assert returns.tolist() == [pytest.approx([1.5, 1.0, 2.0])]


# --------------------------------------------------------------------------- whitening


def test_whitening_by_hand() -> None:
    """1, 2, 3 and 6 have the mean 3 and the variance 14/3 with Bessel's correction."""
    values = padded([[1.0, 2.0, 3.0], [6.0]], pad=99.0)
    mask = mask_of([[1, 2, 3], [6]])
    deviation = math.sqrt(14 / 3)
    expected = [[-2 / deviation, -1 / deviation, 0.0], [3 / deviation, 0.0, 0.0]]
    assert whiten_tokens(values, mask).tolist() == [pytest.approx(row, abs=1e-8) for row in expected]
    kept = [[each + 3 for each in expected[0]], [expected[1][0] + 3, 0.0, 0.0]]
    assert whiten_tokens(values, mask, centre=False).tolist() == [pytest.approx(row, abs=1e-8) for row in kept]


@pytest.mark.parametrize(
    ("values", "mask", "expected"),
    [([[4.0, 9.0]], [[True, False]], [[0.0, 0.0]]), ([[4.0, 4.0]], [[True, True]], [[0.0, 0.0]])],
)
def test_what_has_no_deviation_becomes_no_nan(
    values: list[list[float]], mask: list[list[bool]], expected: list[list[float]]
) -> None:
    assert whiten_tokens(torch.tensor(values), torch.tensor(mask)).tolist() == expected


def test_no_tokens_are_whitened_to_nothing() -> None:
    assert whiten_tokens(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool)).tolist() == [[0.0, 0.0]] * 2
