"""PCRM's numbers: caps, similarities and losses against values worked out by hand, and their gradients."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.functional import softplus

from tureen_train.config.ranking import Constraint, RandomCap
from tureen_train.measures.constraints import (
    compute_angular_similarity,
    compute_caps,
    compute_length_ratio,
    compute_token_gaps,
    draw_caps,
    find_divergence,
    sum_cap_losses,
    sum_pair_losses,
)

SIMILAR = [1.0, 0.9, 0.8, 0.7, 0.5]
DTYPES = [torch.float64, torch.float32]
_SETTINGS: TypeAdapter[Constraint] = TypeAdapter(Constraint)


def settings(**keys: object) -> Constraint:
    return _SETTINGS.validate_python(keys)


def by_length(beta1: float, beta2: float, beta3: float, **more: float) -> Constraint:
    return settings(prior="length_ratio", beta1=beta1, beta2=beta2, beta3=beta3, **more)


def one(gap: float, cap: float, dtype: torch.dtype = torch.float64) -> float:
    """The loss of one pair with one position."""
    gaps, weights = torch.tensor([[gap]], dtype=dtype), torch.ones(1, 1, dtype=dtype)
    return float(sum_pair_losses(gaps, weights) + sum_cap_losses(gaps, weights, torch.tensor([cap], dtype=dtype)))


# --------------------------------------------------------------------------- caps


@pytest.mark.parametrize(
    ("betas", "caps"),
    [
        ((20, 0.001, -15), [4.980020, 7.197558, 9.968789, 13.530670, 24.920160]),
        ((30, 0.001, -25), [4.970030, 8.296337, 12.453184, 17.796006, 34.880240]),
        ((10, 0.001, -5), [4.990010, 6.098779, 7.484395, 9.265335, 14.960080]),
        ((20, 0.001, -17), [2.980020, 5.197558, 7.968789, 11.530670, 22.920160]),
        ((6, 0.001, 0), [5.994006, 6.659267, 7.490637, 8.559201, 11.976048]),
    ],
)
def test_published_settings_give_the_published_caps(betas: tuple[float, float, float], caps: list[float]) -> None:
    assert compute_caps(by_length(*betas), SIMILAR) == pytest.approx(caps, abs=1e-6)


def test_a_cap_that_would_explode_ends_at_the_ceiling() -> None:
    """β₁/β₂ would be 20,000 for two answers of which nothing is alike."""
    assert compute_caps(by_length(20, 0.001, -15), [0.0, 0.01, 0.3, 0.4]) == pytest.approx(
        [50, 50, 50, 34.875312], abs=1e-6
    )
    assert compute_caps(by_length(20, 0.0, -15, ceiling=9), [0.0, 1.0]) == pytest.approx([9, 5])


def test_fixed_and_drawn_caps_do_not_ask_for_similarity() -> None:
    assert compute_caps(settings(prior="fixed", value=4.5), [[1, 0], [0, 1]]).tolist() == [[4.5, 4.5]] * 2
    assert compute_caps(settings(prior="random", low=1, high=2), SIMILAR).tolist() == [1.5] * 5


def test_drawn_caps_fill_their_range_and_follow_the_seed() -> None:
    prior = RandomCap(prior="random", low=4, high=5)
    torch.manual_seed(3)
    first = draw_caps(prior, 2000)
    torch.manual_seed(3)
    assert torch.equal(first, draw_caps(prior, 2000))
    assert not torch.equal(first, draw_caps(prior, 2000))
    assert 4 <= float(first.min()) < 4.01
    assert 4.99 < float(first.max()) <= 5
    assert float(first.mean()) == pytest.approx(4.5, abs=0.03)


# --------------------------------------------------------------------------- similarity


def test_cosines_become_angles() -> None:
    expected = [1, 0.898917, 0.856434, 0.795167, 0.666667, 0.5, 0.5]
    assert compute_angular_similarity([1, 0.95, 0.9, 0.8, 0.5, 0, -0.7]) == pytest.approx(expected, abs=1e-6)
    assert compute_angular_similarity(1 + 1e-7) == 1.0  # rounding of unit vectors


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, *range(10, 50)], [1, 2, *range(60, 84)], 0.6),  # a span of 40, of which the shorter lacks 16
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 2, 3], [1, 4, 5], 1.0),
        ([1, 2], [1, 2, 3], 0.0),
        ([5, 6], [7, 8, 9, 9], 0.5),
        ([], [], 1.0),
    ],
)
def test_length_ratio_counts_from_where_two_texts_part(first: list[int], second: list[int], expected: float) -> None:
    assert compute_length_ratio(first, second) == pytest.approx(expected)
    assert compute_length_ratio(second, first) == pytest.approx(expected)


def test_texts_that_were_cut_to_one_length_are_equally_long() -> None:
    """Cut from the left or the right, two texts of ``max_length`` have as much left after they part."""
    whole = [list(range(100)), [0, *range(200, 310)]]
    for cut in (slice(None, 32), slice(-32, None)):
        assert compute_length_ratio(whole[0][cut], whole[1][cut]) == 1.0


def test_divergence_is_the_shared_beginning() -> None:
    assert [find_divergence([1, 2, 3], other) for other in ([1, 2, 4], [9], [1, 2], [1, 2, 3])] == [2, 0, 2, 3]


# --------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("gap", "loss"), [(0, 0.704195), (1, 0.343012), (2.25, 0.200413), (4.5, 0.704195)])
def test_a_pairs_loss_is_the_published_one(gap: float, loss: float, dtype: torch.dtype) -> None:
    assert one(gap, 4.5, dtype) == pytest.approx(loss, abs=1e-6)


@given(st.floats(0.05, 30))
def test_the_loss_is_least_at_half_the_cap(cap: float) -> None:
    assert one(cap / 2, cap) < min(one(cap / 2 + 0.5, cap), one(cap / 2 - 0.5, cap))
    assert one(cap / 2, cap) == pytest.approx(2 * float(softplus(torch.tensor(-cap / 2, dtype=torch.float64))))
    gap = torch.tensor([[cap / 2]], dtype=torch.float64, requires_grad=True)
    weights = torch.ones(1, 1, dtype=torch.float64)
    (sum_pair_losses(gap, weights) + sum_cap_losses(gap, weights, torch.tensor([cap], dtype=torch.float64))).backward()
    assert gap.grad is not None
    assert float(gap.grad) == pytest.approx(0, abs=1e-12)


@given(st.floats(-40, 40), st.floats(-40, 40), st.floats(0.05, 50))
def test_the_loss_is_convex_and_symmetric_about_it(first: float, second: float, cap: float) -> None:
    assert one((first + second) / 2, cap) <= (one(first, cap) + one(second, cap)) / 2 + 1e-9
    assert one(cap / 2 + first, cap) == pytest.approx(one(cap / 2 - first, cap), abs=1e-9)


def test_a_cap_at_the_ceiling_is_no_constraint() -> None:
    plain = float(softplus(torch.tensor(-3.0, dtype=torch.float64)))
    assert one(3.0, 50.0) == pytest.approx(plain, abs=1e-15)


def test_no_gradient_goes_into_the_caps() -> None:
    gaps, caps = torch.ones(2, 1, requires_grad=True), torch.ones(2, requires_grad=True)
    sum_cap_losses(gaps, torch.ones(2, 1), caps).backward()
    assert gaps.grad is not None
    assert caps.grad is None


# --------------------------------------------------------------------------- spans


PAD = 0
TEXTS = [[7, 8, 1, 2, 3, 4], [7, 8, 1, 5], [7, 8, 1, 2, 3, 4], [9, 8, 1, 2, 3, 4]]


def rows(texts: Sequence[Sequence[int]], width: int = 7) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([[*text, *[PAD] * (width - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    return ids, mask


def rewards(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)


def span(better: int, worse: int, hold: bool = True, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return compute_token_gaps(rewards(dtype), *rows(TEXTS), torch.tensor([better]), torch.tensor([worse]), hold)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_span_runs_from_the_divergence_to_the_end_of_the_longer(dtype: torch.dtype) -> None:
    gaps, weights = span(0, 1, dtype=dtype)
    assert weights.dtype == dtype
    assert weights[0].tolist() == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 0])
    r = rewards(dtype)
    expected = [r[0, t] - r[1, min(t, 3)] for t in (3, 4, 5)]
    assert gaps[0, 3:6].tolist() == pytest.approx([float(each) for each in expected])


def test_the_published_span_reads_the_shorter_ones_padding() -> None:
    gaps, weights = span(0, 1, hold=False)
    r = rewards()
    assert weights[0].tolist() == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 0])
    assert gaps[0, 3:6].tolist() == pytest.approx((r[0, 3:6] - r[1, 3:6]).tolist())


def test_equal_texts_are_compared_at_their_last_token_only() -> None:
    _, weights = span(0, 2)
    assert weights[0].tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_texts_that_differ_from_the_first_token_on_are_compared_whole() -> None:
    _, weights = span(0, 3)
    assert weights[0].tolist() == pytest.approx([1 / 6] * 6 + [0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_span_loss_is_the_mean_over_its_tokens(dtype: torch.dtype) -> None:
    """Worked out token by token, as PCRM's code does it, with a cap of 5."""
    for hold in (True, False):
        gaps, weights = span(1, 0, hold, dtype)
        r = rewards()
        differences = [float(r[1, min(t, 3) if hold else t] - r[0, t]) for t in (3, 4, 5)]
        better = np.mean([math.log1p(math.exp(-each)) for each in differences])
        capped = np.mean([math.log1p(math.exp(each - 5)) for each in differences])
        assert float(sum_pair_losses(gaps, weights)) == pytest.approx(better, rel=1e-5)
        assert float(sum_cap_losses(gaps, weights, torch.tensor([5.0], dtype=dtype))) == pytest.approx(capped, rel=1e-5)


def test_no_pairs_give_no_loss_and_a_gradient_of_zero() -> None:
    r = rewards().requires_grad_()
    none = torch.zeros(0, dtype=torch.long)
    gaps, weights = compute_token_gaps(r, *rows(TEXTS), none, none)
    total = sum_pair_losses(gaps, weights) + sum_cap_losses(gaps, weights, torch.zeros(0))
    total.backward()
    assert float(total.detach()) == 0
    assert r.grad is not None
    assert float(r.grad.abs().sum()) == 0


@pytest.mark.parametrize("hold", [True, False])
def test_gradients_are_those_of_finite_differences(hold: bool) -> None:
    ids, mask = rows(TEXTS)
    better, worse = torch.tensor([0, 1, 3]), torch.tensor([1, 3, 0])
    caps = torch.tensor([0.5, 2.0, 5.0], dtype=torch.float64)

    def loss(r: Tensor) -> Tensor:
        gaps, weights = compute_token_gaps(r, ids, mask, better, worse, hold)
        return sum_pair_losses(gaps, weights) + sum_cap_losses(gaps, weights, caps)

    assert torch.autograd.gradcheck(loss, (rewards().requires_grad_(),))
