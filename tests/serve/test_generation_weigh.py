"""The arithmetic of weighed rewards, against numbers done by hand and laws that must hold for any."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen_core.calibration import Calibration
from tureen_serve.generation.weigh import (
    blend_scales,
    build_preference_matrix,
    compute_preference,
    judge_answers,
    rank_rewards,
    weigh_rewards,
)

SCALES = {
    "calm": Calibration(mean=1, std=2, temperature=0.5),
    "funny": Calibration(mean=-1, std=0.5, temperature=4),
}
HALF = {"calm": 0.5, "funny": 0.5}

RAW = st.fixed_dictionaries({name: st.floats(-50, 50) for name in SCALES})
WEIGHTS = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(
    lambda pair: {"calm": pair[0] / sum(pair), "funny": pair[1] / sum(pair)}
)


def test_rewards_are_weighed_on_their_calibrated_scale() -> None:
    assert weigh_rewards({"calm": 5, "funny": 0}, HALF, SCALES) == pytest.approx(0.5 * 2 + 0.5 * 2)
    assert weigh_rewards({"calm": 5, "funny": 0, "other": 9}, {"calm": 1.0}, SCALES) == 2
    assert weigh_rewards({"calm": 5}, {"calm": -1.0}, SCALES) == -2


def test_probabilities_weigh_raw_differences_by_temperature() -> None:
    logit = 0.5 * (1 / 0.5) + 0.5 * (-2 / 4)
    expected = 1 / (1 + math.exp(-logit))
    assert compute_preference({"calm": 1, "funny": 0}, {"calm": 0, "funny": 2}, HALF, SCALES) == pytest.approx(expected)


def test_the_scale_of_a_soup_is_the_weighted_mean_of_its_parts() -> None:
    soup = blend_scales({"calm": 0.25, "funny": 0.75}, SCALES)
    assert soup == Calibration(mean=-0.5, std=0.875, temperature=3.125)
    assert blend_scales({"calm": 1.0}, SCALES) == SCALES["calm"]


def test_best_first_and_equals_in_the_order_given() -> None:
    assert rank_rewards([1.0, 3.0, 2.0, 3.0]) == [1, 3, 2, 0]
    assert rank_rewards([0.0, 0.0, 0.0]) == [0, 1, 2]


def test_two_answers_make_a_verdict() -> None:
    verdict = judge_answers([{"calm": 1, "funny": 0}, {"calm": 5, "funny": 0}], {"calm": 1.0}, SCALES)
    assert (verdict.ranking, verdict.chosen, verdict.rejected, verdict.tie) == ([1, 0], 1, 0, False)
    assert verdict.margin == 2
    assert verdict.probability == pytest.approx(1 / (1 + math.exp(-8)))


def test_of_many_the_best_stands_against_the_worst() -> None:
    raws = [{"calm": value} for value in (3.0, 9.0, 1.0, 5.0)]
    verdict = judge_answers(raws, {"calm": 1.0}, SCALES)
    assert verdict.ranking == [1, 3, 0, 2]
    assert (verdict.chosen, verdict.rejected, verdict.margin) == (1, 2, 4.0)


@pytest.mark.parametrize(("margin", "tie"), [(0.0, False), (0.99, False), (1.0, True), (5.0, True)])
def test_a_margin_within_the_bound_is_a_tie(margin: float, tie: bool) -> None:
    assert judge_answers([{"calm": 1.0}, {"calm": 3.0}], {"calm": 1.0}, SCALES, margin).tie is tie


def test_equal_rewards_are_a_tie_at_even_odds() -> None:
    verdict = judge_answers([{"calm": 1.5}] * 3, {"calm": 1.0}, SCALES)
    assert (verdict.tie, verdict.margin, verdict.probability, verdict.ranking) == (True, 0.0, 0.5, [0, 1, 2])


@given(st.lists(RAW, min_size=2, max_size=6), WEIGHTS)
def test_a_verdict_is_of_the_extremes(raws: list[dict[str, float]], weights: dict[str, float]) -> None:
    rewards = [weigh_rewards(raw, weights, SCALES) for raw in raws]
    verdict = judge_answers(raws, weights, SCALES)
    assert rewards[verdict.chosen] == max(rewards)
    assert rewards[verdict.rejected] == min(rewards)
    assert sorted(verdict.ranking) == list(range(len(raws)))
    assert verdict.margin >= 0
    assert 0 <= verdict.probability <= 1


@given(st.lists(RAW, min_size=2, max_size=5), WEIGHTS)
def test_a_matrix_is_antisymmetric_about_a_half(raws: list[dict[str, float]], weights: dict[str, float]) -> None:
    found = build_preference_matrix(raws, weights, SCALES)
    for row in range(len(raws)):
        assert found[row][row] == 0.5
        for column in range(len(raws)):
            assert found[row][column] + found[column][row] == pytest.approx(1)


@given(RAW, RAW)
def test_one_objective_orders_alike_by_reward_and_by_probability(
    one: dict[str, float], other: dict[str, float]
) -> None:
    for name in SCALES:
        sure = compute_preference(one, other, {name: 1.0}, SCALES)
        assert (sure > 0.5) <= (weigh_rewards(one, {name: 1.0}, SCALES) >= weigh_rewards(other, {name: 1.0}, SCALES))


def test_a_reward_without_a_calibration_is_weighed_raw() -> None:
    bare = {"calm": None}
    assert weigh_rewards({"calm": 5}, {"calm": 1.0}, bare) == 5
    assert compute_preference({"calm": 2}, {"calm": 1.5}, {"calm": 1.0}, bare) == pytest.approx(
        1 / (1 + math.exp(-0.5))
    )


def test_a_soup_of_a_reward_without_a_calibration_has_none() -> None:
    assert blend_scales({"calm": 0.5, "bare": 0.5}, {**SCALES, "bare": None}) is None
    assert blend_scales({"calm": 1.0}, {**SCALES, "bare": None}) == SCALES["calm"]
