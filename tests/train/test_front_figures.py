"""The figures of measured methods against numbers by hand."""

import math

import numpy as np
import pytest
from train.fronts import front, method

from tureen_train.front.figures import OWN, compare_rewards, compute_figures, compute_win_rate, list_front_points
from tureen_train.front.grids import EVERYWHERE

BASE = method("base", {EVERYWHERE: [[1, 1], [1, 1], [1, 1]]})
SOUP = method("soup", {"a=1": [[3, 1], [2, 1], [1, 1]], "b=1": [[1, 2], [1, 2], [0, 2]]})


def test_the_hypervolume_is_that_of_the_means_and_the_gain_is_the_difference() -> None:
    told = front([BASE, SOUP])
    own = compute_figures(told, "soup")
    assert own.hypervolume.value == pytest.approx(2 * 1 + 2 / 3)
    assert own.gain.value == pytest.approx(own.hypervolume.value - 1)
    assert own.below == 0
    assert (own.words, own.tokens, own.finished, own.seconds) == (2, 4, 1, 0.5)


def test_a_gain_is_paired_over_the_prompts() -> None:
    """Prompts differ widely, and the method is better by the same factor on each: the pairs tell it surely."""
    rewards = np.random.default_rng(0).uniform(1, 9, size=(40, 2))
    told = front([method("base", {EVERYWHERE: rewards}), method("same", {EVERYWHERE: rewards})])
    own = compute_figures(told, "same")
    assert own.hypervolume.high - own.hypervolume.low > 1
    assert (own.gain.value, own.gain.low, own.gain.high) == (0, 0, 0)


def test_the_points_say_on_which_fronts_they_are() -> None:
    told = list_front_points(front([BASE, SOUP]))
    assert [(each.method, each.point, each.front, each.own) for each in told] == [
        ("base", EVERYWHERE, False, True),
        ("soup", "a=1", True, True),
        ("soup", "b=1", True, True),
    ]


def test_a_win_is_by_the_weighted_reward_of_the_point_and_a_tie_counts_one_half() -> None:
    told = front([BASE, SOUP])
    assert compare_rewards(told, SOUP, BASE).tolist() == [[1, 1, 0.5], [1, 1, 1]]
    assert compute_figures(told, "soup").wins[OWN].value == pytest.approx(5.5 / 6)


def test_win_rates_of_two_methods_add_up_to_one() -> None:
    draw = np.random.default_rng(1)
    one, two = (
        method(name, {point: draw.integers(0, 3, size=(15, 2)) for point in ("a=1", "b=1")}) for name in ("one", "two")
    )
    told = front([one, two])
    shares, turned = compare_rewards(told, one, two), compare_rewards(told, two, one)
    assert np.array_equal(shares, 1 - turned)
    assert compute_win_rate(shares).value == pytest.approx(1 - compute_win_rate(turned).value)
    assert (compare_rewards(told, one, one) == 0.5).all()


def test_what_a_judge_did_not_decide_is_left_out_and_counted() -> None:
    judged = method("soup", {"a=1": [[1, 1], [1, 1], [1, 1]]}, shares={"a=1": [1.0, math.nan, 0.5]})
    own = compute_figures(front([BASE, judged], judge="owl"), "soup")
    assert (own.wins["owl"].value, own.wins["owl"].n, own.unjudged) == (0.75, 2, 1)
    assert math.isnan(compute_win_rate(np.array([[math.nan]])).value)


def test_a_mean_of_tokens_needs_all_of_them() -> None:
    told = method("soup", {"a=1": [[1, 1], [1, 1]]})
    object.__setattr__(told.answers["a=1"][0], "tokens", None)
    assert math.isnan(compute_figures(front([told]), "soup").tokens)
