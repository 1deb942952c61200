"""Verdicts by comparison: who meets whom, what both orders make together, and several rewards at once."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen_core.calibration import Calibration
from tureen_serve.generation.pairwise import (
    PairwiseVerdict,
    Rounds,
    average_orders,
    build_order_matrix,
    compute_order_probabilities,
    play_knockout,
    play_round_robin,
)

PLAIN = {"a": Calibration(), "b": Calibration(temperature=2)}


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def played(rounds: Rounds, sure: Callable[[int, int], float]) -> tuple[PairwiseVerdict, list[list[tuple[int, int]]]]:
    """The verdict, and what was asked in each round."""
    seen = [next(rounds)]
    while True:
        try:
            seen.append(rounds.send([sure(*pair) for pair in seen[-1]]))
        except StopIteration as end:
            return end.value, seen


def by_strength(*strengths: float) -> Callable[[int, int], float]:
    return lambda i, j: sigmoid(strengths[i] - strengths[j])


def test_everybody_meets_everybody_in_one_round() -> None:
    judged, asked = played(play_round_robin(3, 0.0), by_strength(1, 3, 0))
    assert asked == [[(0, 1), (0, 2), (1, 2)]]
    verdict = judged.verdict
    assert (verdict.ranking, verdict.chosen, verdict.rejected) == ([1, 0, 2], 1, 2)
    assert verdict.probability == pytest.approx(sigmoid(3))
    assert verdict.margin == pytest.approx(3)
    assert not verdict.tie
    assert judged.matrix is not None
    assert judged.matrix[1][0] == pytest.approx(sigmoid(2))
    assert judged.matrix[0][1] == pytest.approx(sigmoid(-2))


def test_a_knockout_asks_one_comparison_a_round_and_keeps_the_winner() -> None:
    judged, asked = played(play_knockout(4, 0.0), by_strength(1, 0, 5, 2))
    assert asked == [[(0, 1)], [(0, 2)], [(2, 3)]]
    verdict = judged.verdict
    assert (verdict.ranking, verdict.chosen, verdict.rejected) == ([2, 3, 0, 1], 2, 3)
    assert verdict.probability == pytest.approx(sigmoid(3))
    assert judged.matrix is None


def test_the_rejected_one_has_met_the_winner() -> None:
    """The last challenger wins: it has met the winner so far and nobody else."""
    judged, asked = played(play_knockout(3, 0.0), by_strength(1, 0, 5))
    assert asked == [[(0, 1)], [(0, 2)]]
    assert (judged.verdict.ranking, judged.verdict.rejected) == ([2, 0, 1], 0)
    assert judged.verdict.probability == pytest.approx(sigmoid(4))


def test_two_answers_are_one_comparison_either_way() -> None:
    for rounds in (play_round_robin(2, 0.0), play_knockout(2, 0.0)):
        judged, asked = played(rounds, by_strength(0, 1))
        assert asked == [[(0, 1)]]
        assert (judged.verdict.chosen, judged.verdict.rejected) == (1, 0)
        assert judged.verdict.probability == pytest.approx(sigmoid(1))


@pytest.mark.parametrize(("margin", "tie"), [(0.0, True), (0.1, True)])
def test_even_odds_are_a_tie(margin: float, tie: bool) -> None:
    judged, _ = played(play_round_robin(2, margin), lambda *_: 0.5)
    assert (judged.verdict.ranking, judged.verdict.margin, judged.verdict.tie) == ([0, 1], 0, tie)


def test_a_tie_is_a_margin_in_log_odds() -> None:
    assert played(play_round_robin(2, 0.5), by_strength(0.4, 0))[0].verdict.tie
    assert not played(play_round_robin(2, 0.5), by_strength(0.6, 0))[0].verdict.tie


# --------------------------------------------------------------------------- one comparison


def test_a_lean_to_a_side_cancels_out() -> None:
    assert average_orders(compute_order_probabilities({"a": 0.7}, {"a": 0.7}, {"a": 1}, PLAIN)) == pytest.approx(
        0.5, abs=1e-15
    )
    found = compute_order_probabilities({"a": 2.0}, {"a": -1.0}, {"a": 1}, PLAIN)
    assert found == pytest.approx((sigmoid(2), sigmoid(1)))
    assert average_orders(found) == pytest.approx((sigmoid(2) + sigmoid(1)) / 2)


@given(st.floats(-40, 40))
def test_equal_answers_are_exactly_even(lean: float) -> None:
    assert average_orders(compute_order_probabilities({"a": lean}, {"a": lean}, {"a": 1}, PLAIN)) == 0.5


def test_the_temperature_is_the_rewards_own() -> None:
    assert compute_order_probabilities({"b": 2.0}, {"b": -2.0}, {"b": 1}, PLAIN) == pytest.approx(
        (sigmoid(1), sigmoid(1))
    )


def test_several_rewards_are_weighed_as_log_odds() -> None:
    there, back = compute_order_probabilities(
        {"a": 2.0, "b": -4.0}, {"a": -2.0, "b": 3.0}, {"a": 0.75, "b": 0.25}, PLAIN
    )
    assert there == pytest.approx(sigmoid(0.75 * 2 + 0.25 * -2))
    assert back == pytest.approx(sigmoid(0.75 * 2 + 0.25 * -1.5))


def test_a_matrix_says_who_was_shown_first() -> None:
    assert build_order_matrix(3, {(0, 2): (0.9, 0.75)}) == [[0.5, 0.5, 0.9], [0.5, 0.5, 0.5], [0.25, 0.5, 0.5]]


def test_certainty_is_a_finite_margin() -> None:
    judged, _ = played(play_round_robin(2, 0.0), lambda *_: 1.0)
    assert math.isfinite(judged.verdict.margin)
