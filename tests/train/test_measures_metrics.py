"""Figures of a reward model against the published vectors and the definitions, pair by pair."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tureen_train.measures.metrics import (
    compute_accuracy,
    compute_best_rate,
    compute_calibration_errors,
    compute_gaps,
    compute_length_correlation,
    compute_ranking_metrics,
    find_bin,
    mirror_pairs,
)
from tureen_train.measures.non_finite import replace_non_finite

NAN = math.nan


def test_published_calibration_vector() -> None:
    rewards = [[2.0, 0.0], [0.5, 0.0], [0.0, 1.0], [3.0, -1.0]]
    gaps = compute_gaps(rewards, [[1, 0]] * 4)
    found = compute_calibration_errors(gaps)
    assert found.ece == pytest.approx(0.3114471, abs=1e-7)
    assert found.ace == pytest.approx(0.3114471, abs=1e-7)
    assert found.mce == pytest.approx(0.7310586, abs=1e-7)
    assert compute_accuracy(gaps) == 0.75


def naive_calibration(gaps: list[float], bins: int) -> tuple[float, float, float]:
    """APO's definition with loops and dictionaries."""
    found: dict[int, list[tuple[float, float]]] = {}
    for gap in gaps:
        p = 1 / (1 + math.exp(-gap))
        for probability, outcome in ((p, 1.0), (1 - p, 0.0)):
            index = sum(probability > (k + 1) / bins for k in range(bins - 1))
            found.setdefault(index, []).append((probability, outcome))
    total = 2 * len(gaps)
    off = {k: abs(sum(p for p, _ in rows) - sum(y for _, y in rows)) for k, rows in found.items()}
    shares = [off[k] / len(rows) for k, rows in found.items()]
    return sum(off.values()) / total, sum(shares) / len(shares), max(shares)


# binary fractions apart from the bins' edges, where two roundings of one number may differ
fractions = st.integers(-640, 640).map(lambda n: n / 64 + 1 / 1024)


@settings(deadline=None)
@given(st.lists(fractions, min_size=1, max_size=30), st.sampled_from([2, 5, 10, 15]))
def test_any_gaps_equal_the_definition(gaps: list[float], bins: int) -> None:
    found = compute_calibration_errors(np.array(gaps), bins)
    assert (found.ece, found.ace, found.mce) == pytest.approx(naive_calibration(gaps, bins), abs=1e-9)


def test_an_honest_coin_is_calibrated_and_no_pairs_are_zero() -> None:
    assert compute_calibration_errors(np.zeros(8)).ece == pytest.approx(0)
    nothing = compute_calibration_errors(np.zeros(0))
    assert (nothing.ece, nothing.ace, nothing.mce) == (0, 0, 0)


@pytest.mark.parametrize(("p", "index"), [(0.0, 0), (0.1, 0), (0.1000001, 1), (0.5, 4), (0.9, 8), (1.0, 9)])
def test_bins_are_closed_above(p: float, index: int) -> None:
    assert find_bin(np.array([p]), 10).tolist() == [index]


def test_every_pair_counts_in_both_orders_without_overflow() -> None:
    with np.errstate(all="raise"):
        p, outcome = mirror_pairs(np.array([1e6, -1e6, 0.0]))
    assert p.tolist() == pytest.approx([1, 0, 0.5, 0, 1, 0.5])
    assert outcome.tolist() == [1, 1, 1, 0, 0, 0]


# --------------------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    ("gaps", "share"), [([1, 1], 1.0), ([-1], 0.0), ([0], 0.5), ([0, 2, -3, 0], 0.5), ([0, 0, 1], 2 / 3)]
)
def test_equal_rewards_count_one_half(gaps: list[float], share: float) -> None:
    assert compute_accuracy(np.array(gaps, dtype=float)) == pytest.approx(share)


def test_ties_and_absent_answers_make_no_pairs() -> None:
    rewards = [[3.0, 1.0, 2.0, NAN], [1.0, 5.0, NAN, NAN]]
    scores = [[1.0, 0.0, 0.0, NAN], [1.0, 1.0, NAN, NAN]]
    assert sorted(compute_gaps(rewards, scores).tolist()) == [1, 2]


tables = st.integers(2, 5).flatmap(
    lambda width: st.lists(
        st.lists(st.tuples(st.integers(-4, 4), st.sampled_from([0.0, 1.0, 2.0, NAN])), min_size=width, max_size=width),
        min_size=1,
        max_size=6,
    )
)


@settings(deadline=None)
@given(tables)
def test_pairs_are_those_of_the_loops(table: list[list[tuple[int, float]]]) -> None:
    rewards = [[float(reward) for reward, _ in row] for row in table]
    scores = [[score for _, score in row] for row in table]
    expected = [
        rewards[b][i] - rewards[b][j]
        for b in range(len(table))
        for i in range(len(table[0]))
        for j in range(len(table[0]))
        if scores[b][i] > scores[b][j]
    ]
    assert compute_gaps(rewards, scores).tolist() == expected


@pytest.mark.parametrize(
    ("rewards", "scores", "share"),
    [
        ([[3, 1, 0]], [[1, 0, 0]], 1.0),
        ([[1, 3, 0]], [[1, 0, 0]], 0.0),
        ([[3, 3, 0]], [[1, 0, 0]], 0.5),
        ([[3, 1, 9]], [[1, 0, NAN]], 1.0),
        ([[3, 1], [1, 2]], [[1, 0], [1, 0]], 0.5),
        ([[1, 2], [5, 4]], [[1, 1], [1, 0]], 1.0),  # a prompt of ties says nothing
    ],
)
def test_best_of_n(rewards: list[list[float]], scores: list[list[float]], share: float) -> None:
    assert compute_best_rate(np.array(rewards, float), np.array(scores, float)) == pytest.approx(share)


def test_no_prompt_with_a_best_answer_has_no_best_rate() -> None:
    assert math.isnan(compute_best_rate(np.array([[1.0, 2.0]]), np.array([[1.0, 1.0]])))


# --------------------------------------------------------------------------- lengths


def test_length_correlation_is_within_prompts() -> None:
    """Long prompts with high rewards do not make a length bias: here, within each, the shorter wins."""
    lengths = np.array([[10.0, 12.0], [100.0, 102.0]])
    rewards = np.array([[1.0, 0.0], [9.0, 8.0]])
    assert compute_length_correlation(rewards, lengths) == pytest.approx(-1)
    assert compute_length_correlation(-rewards, lengths) == pytest.approx(1)


def test_length_correlation_is_pearsons_on_centred_values() -> None:
    rng = np.random.default_rng(0)
    rewards, lengths = rng.normal(size=(6, 3)), rng.integers(1, 90, size=(6, 3)).astype(float)
    x = (rewards - rewards.mean(1, keepdims=True)).ravel()
    y = (lengths - lengths.mean(1, keepdims=True)).ravel()
    assert compute_length_correlation(rewards, lengths) == pytest.approx(np.corrcoef(x, y)[0, 1])
    padded = np.hstack([rewards, np.full((6, 2), NAN)]), np.hstack([lengths, np.full((6, 2), NAN)])
    assert compute_length_correlation(*padded) == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_equal_lengths_have_no_correlation() -> None:
    assert math.isnan(compute_length_correlation(np.array([[1.0, 2.0]]), np.array([[7.0, 7.0]])))


# --------------------------------------------------------------------------- all of them


def test_all_figures_of_a_file() -> None:
    rewards = [[2.0, 0.0, NAN], [0.5, 1.5, -1.0]]
    scores = [[1.0, 0.0, NAN], [2.0, 1.0, 0.0]]
    lengths = [[5.0, 3.0, NAN], [4.0, 4.0, 6.0]]
    found = compute_ranking_metrics(rewards, scores, lengths)
    gaps = [2.0, -1.0, 1.5, 2.5]
    assert found.pairs == 4
    assert found.accuracy == 0.75
    assert found.best == 0.5
    assert found.margin == pytest.approx(np.mean(gaps))
    assert found.margin_std == pytest.approx(np.std(gaps))
    assert found.reward_mean == pytest.approx(0.6)
    assert found.reward_std == pytest.approx(np.std([2, 0, 0.5, 1.5, -1]))
    assert found.ece == compute_calibration_errors(np.array(gaps)).ece


def test_a_file_of_ties_has_undefined_figures_that_become_null() -> None:
    found = compute_ranking_metrics([[1.0, 2.0]], [[1.0, 1.0]], [[3.0, 3.0]]).plain()
    assert found["pairs"] == 0
    assert all(math.isnan(found[name]) for name in ("accuracy", "best", "margin", "length_correlation"))
    told = json.loads(json.dumps(replace_non_finite(found), allow_nan=False))
    assert told["accuracy"] is None
    assert told["reward_mean"] == 1.5
