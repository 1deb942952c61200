"""Comparisons into verdicts: both orders, the knock-out's path, the round robin's ranking."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen_core.calibration import compute_sigmoid
from tureen_core.tournament import compute_log_odds, compute_preference, list_pairs, rank_round_robin, run_knockout

logits = st.floats(-30, 30)


def knockout(count: int, beats: Callable[[int, int], float]) -> int:
    """Plays :func:`matches` to its end."""
    game = run_knockout(count)
    try:
        pair = next(game)
        while True:
            pair = game.send(beats(*pair))
    except StopIteration as end:
        winner: int = end.value
        return winner


@given(logits, logits)
def test_the_orders_of_a_pair_are_averaged_and_swapping_it_turns_the_verdict_round(a: float, b: float) -> None:
    assert compute_preference(a, b) == pytest.approx((compute_sigmoid(a) + 1 - compute_sigmoid(b)) / 2, abs=1e-12)
    assert compute_preference(a, b) + compute_preference(b, a) == pytest.approx(1, abs=1e-12)


@given(st.integers(-12, 12), st.integers(-12, 12), st.floats(0.5, 10))
def test_the_larger_log_odds_win(a: int, b: int, temperature: float) -> None:
    assert (compute_preference(a, b, temperature) > 0.5) == (a > b)
    assert (compute_preference(a, b, temperature) == 0.5) == (a == b)


@given(st.floats(-15, 15))
def test_log_odds_turn_a_probability_back(logit: float) -> None:
    assert compute_log_odds(compute_sigmoid(logit)) == pytest.approx(logit, abs=1e-6)


def test_certainty_has_finite_log_odds() -> None:
    assert compute_log_odds(1.0) == pytest.approx(-compute_log_odds(0.0))
    assert compute_log_odds(1.0) == pytest.approx(20.7, abs=0.1)


def test_a_lean_to_the_first_place_cancels_out() -> None:
    assert compute_preference(1 + 0.7, -1 + 0.7) == pytest.approx((compute_sigmoid(1.7) + compute_sigmoid(0.3)) / 2)
    assert compute_preference(0.7, 0.7) == 0.5


def test_the_winner_meets_the_next_and_a_half_keeps_it() -> None:
    strengths = [1, 3, 2, 3]
    asked = []

    def beats(first: int, second: int) -> float:
        asked.append((first, second))
        return compute_sigmoid(strengths[first] - strengths[second])

    assert knockout(4, beats) == 1
    assert asked == [(0, 1), (1, 2), (1, 3)]
    assert knockout(1, beats) == 0
    assert len(asked) == 3


def test_a_knock_out_waits_for_whoever_compares() -> None:
    game = run_knockout(3)
    assert next(game) == (0, 1)
    assert game.send(0.4) == (1, 2)
    with pytest.raises(StopIteration) as end:
        game.send(0.1)
    assert end.value.value == 2


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="a probability is 0 to 1"):
        knockout(2, lambda *_: value)
    with pytest.raises(ValueError, match="a probability is 0 to 1"):
        rank_round_robin(2, [value])
    with pytest.raises(ValueError, match="at least one answer"):
        knockout(0, lambda *_: 0.5)


def test_everybody_meets_everybody_once() -> None:
    standing = rank_round_robin(3, [0.9, 0.2, 0.3])
    assert list_pairs(3) == [(0, 1), (0, 2), (1, 2)]
    assert standing.wins == [[0.5, 0.9, 0.2], [pytest.approx(0.1), 0.5, 0.3], [0.8, 0.7, 0.5]]
    assert standing.strength == pytest.approx([0.55, 0.2, 0.75])
    assert standing.ranking == [2, 0, 1]
    assert math.fsum(standing.strength) == pytest.approx(1.5)


def test_equals_keep_their_order_and_a_lone_answer_stands_at_a_half() -> None:
    assert rank_round_robin(3, lambda *_: 0.5).ranking == [0, 1, 2]
    lone = rank_round_robin(1, [])
    assert (lone.ranking, lone.strength, lone.wins) == ([0], [0.5], [[0.5]])
    with pytest.raises(ValueError, match="zip"):
        rank_round_robin(3, [0.5])


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8, unique=True))
def test_with_one_order_of_strength_both_name_the_strongest(strengths: list[float]) -> None:
    def beats(first: int, second: int) -> float:
        return compute_sigmoid(strengths[first] - strengths[second])

    best = max(range(len(strengths)), key=strengths.__getitem__)
    standing = rank_round_robin(len(strengths), beats)
    assert strengths[knockout(len(strengths), beats)] == pytest.approx(strengths[best], abs=1e-9)
    assert strengths[standing.ranking[0]] == pytest.approx(strengths[best], abs=1e-9)
