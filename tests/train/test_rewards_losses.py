"""DSP's losses against the published vectors, naive loops and finite differences."""

import math
from collections.abc import Iterable
from itertools import pairwise
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tureen_train.rewards.losses import (
    compute_imitation_loss,
    compute_ranking_loss,
    find_comparable,
    normalise_scores,
)

NAN = math.nan
FIRST = ([2.0, 1.0], [1.0, 0.0])
THIRD = ([2.0, 0.5, -1.0, 0.5], [1.0, 0.5, 0.0, NAN])


def vectors(*prompts: tuple[list[float], list[float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, scores and groups of a batch, in double precision."""
    rewards = [reward for given, _ in prompts for reward in given]
    scores = [score for _, given in prompts for score in given]
    group = [number for number, (given, _) in enumerate(prompts) for _ in given]
    return doubles(rewards), doubles(scores), torch.tensor(group)


def doubles(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


# --------------------------------------------------------------------------- ranking


@pytest.mark.parametrize(
    ("prompts", "loss"),
    [
        ([FIRST], 0.3132617),
        ([([1.0, 1.0], [1.0, 0.0])], 0.6931472),
        ([THIRD], 0.1504713),
        ([([0.2, 0.9, -0.3, 0.4, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0])], 0.7433852),
        ([FIRST, THIRD], 0.1911689),
    ],
)
def test_published_vectors(prompts: list[tuple[list[float], list[float]]], loss: float) -> None:
    assert compute_ranking_loss(*vectors(*prompts)).item() == pytest.approx(loss, abs=1e-6)


def test_the_batch_mean_is_over_pairs_not_over_prompts() -> None:
    means = [compute_ranking_loss(*vectors(each)).item() for each in (FIRST, THIRD)]
    assert sum(means) / 2 == pytest.approx(0.2318665, abs=1e-6)
    assert compute_ranking_loss(*vectors(FIRST, THIRD)).item() != pytest.approx(0.2318665, abs=1e-3)


def naive(rewards: list[float], scores: list[float], group: list[int]) -> float:
    """The definition, pair by pair, in both orders as DSP sums it."""
    losses = []
    for i in range(len(rewards)):
        for j in range(len(rewards)):
            known = not math.isnan(scores[i]) and not math.isnan(scores[j])
            if i != j and group[i] == group[j] and known and scores[i] != scores[j]:
                sign = math.copysign(1.0, scores[j] - scores[i])
                gap = sign * (rewards[j] - rewards[i])
                losses.append(math.log1p(math.exp(-gap)) if gap > -30 else -gap)
    return sum(losses) / len(losses) if losses else 0.0


rows = st.tuples(
    st.floats(-20, 20), st.one_of(st.sampled_from([0.0, 0.5, 1.0, NAN]), st.floats(-3, 3)), st.integers(0, 3)
)


@settings(deadline=None, max_examples=150)
@given(st.lists(rows, min_size=1, max_size=12))
def test_any_batch_equals_the_loop_over_its_pairs(batch: list[tuple[float, float, int]]) -> None:
    rewards, scores, group = (list(column) for column in zip(*batch, strict=True))
    ours = compute_ranking_loss(doubles(rewards), doubles(scores), torch.tensor(group))
    assert ours.item() == pytest.approx(naive(rewards, scores, group), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.lists(rows, min_size=2, max_size=8), st.randoms(use_true_random=False), st.floats(-5, 5))
def test_neither_order_nor_a_constant_nor_an_unlabelled_row_matters(
    batch: list[tuple[float, float, int]], random: Random, shift: float
) -> None:
    def loss(rows: list[tuple[float, float, int]]) -> float:
        rewards, scores, group = zip(*rows, strict=True)
        return compute_ranking_loss(doubles(rewards), doubles(scores), torch.tensor(group)).item()

    shuffled = random.sample(batch, len(batch))
    shifted = [(reward + shift, score, number) for reward, score, number in shuffled]
    assert loss([*shifted, (100.0, NAN, 0)]) == pytest.approx(loss(batch), rel=1e-7, abs=1e-9)


def test_gradient_is_that_of_finite_differences() -> None:
    rewards, scores, group = vectors(THIRD, FIRST, ([0.3, 0.3, 1.2], [1.0, 1.0, 0.0]))
    assert torch.autograd.gradcheck(lambda r: compute_ranking_loss(r, scores, group), (rewards.requires_grad_(),))


@pytest.mark.parametrize("scores", [[1.0, 1.0], [NAN, NAN], [1.0, NAN]])
def test_nothing_to_compare_is_a_zero_that_can_be_differentiated(scores: list[float]) -> None:
    rewards = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = compute_ranking_loss(rewards, torch.tensor(scores), torch.zeros(2, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert rewards.grad is not None
    assert rewards.grad.tolist() == [0, 0]


def test_huge_gaps_neither_overflow_nor_vanish() -> None:
    rewards = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = compute_ranking_loss(rewards, torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.long))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert rewards.grad is not None
    assert rewards.grad.tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("rewards", "scores", "group"), [((4, 1), (4,), (4,)), ((4,), (4, 1), (4,)), ((4,), (4,), (3,)), ((2, 2),) * 3]
)
def test_shapes_that_would_broadcast_are_refused(
    rewards: tuple[int, ...], scores: tuple[int, ...], group: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="three vectors of one length"):
        compute_ranking_loss(torch.zeros(rewards), torch.zeros(scores), torch.zeros(group))


def test_answers_of_different_prompts_never_compare() -> None:
    pairs = find_comparable(torch.tensor([3.0, 2.0, 1.0, NAN]), torch.tensor([0, 1, 0, 0]))
    assert pairs.nonzero().tolist() == [[0, 2]]


# --------------------------------------------------------------------------- imitation


def test_imitation_is_the_mean_over_the_kept_texts() -> None:
    nll = torch.tensor([2.0, 4.0, 9.0])
    assert compute_imitation_loss(nll, torch.tensor([True, True, False])).item() == pytest.approx(3.0, rel=1e-6)
    assert compute_imitation_loss(nll, torch.tensor([False] * 3)).item() == 0


@pytest.mark.parametrize(
    ("scores", "normalised"),
    [((1.5, 0.5), (0.9999933, 0.3333311)), ((2, 0), (0.999995, 0)), ((1, 1), (0.99999, 0.99999))],
)
def test_published_normalised_scores(scores: tuple[float, ...], normalised: tuple[float, ...]) -> None:
    assert normalise_scores(scores) == pytest.approx(normalised, abs=1e-6)


@pytest.mark.parametrize("scores", [(0, 0), (-1, -3), (0.0,), ()])
def test_scores_without_a_positive_one_imitate_nothing(scores: tuple[float, ...]) -> None:
    assert normalise_scores(scores) == pytest.approx([0] * len(scores))


def test_unlabelled_scores_stay_so() -> None:
    first, second = normalise_scores((NAN, 2.0))
    assert math.isnan(first)
    assert second == pytest.approx(1, abs=1e-5)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_normalising_keeps_the_order_and_stays_below_one(scores: list[float]) -> None:
    found = normalise_scores(sorted(scores))
    assert all(low <= high < 1 for low, high in pairwise([*found, max(found)]))
