"""The general figures against loops over pairs, and by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.judging import EVEN, LONGER, SHORTER, credit_items, flatten_pairs, judge_items
from tureen_train.measures.intervals import estimate_share
from tureen_train.measures.metrics import compute_calibration_errors

NAN = math.nan


def item(scores: Sequence[float], texts: Sequence[str] = (), subset: str = "", file: str = "f") -> Item:
    answers = texts or ["x"] * len(scores)
    return Item(
        "i",
        (user_turn("q"),),
        tuple((assistant_turn(text),) for text in answers),
        tuple(scores),
        subset,
        file,
    )


ITEMS = [
    item([1, 0], ["long long long", "short"], "a"),
    item([0, 1], ["long long long", "short"], "b"),
    item([2, 1, 0], ["x" * 20, "x" * 20, "x" * 19], "b"),
    item([1, 1], subset="a"),
    item([1, NAN], subset="a"),
]
REWARDS: list[list[float]] = [[3, 1], [2, 0], [1, 1, 5], [0, 9], [1, 2]]


def judged(temperature: float = 2.0) -> Any:
    return judge_items(ITEMS, REWARDS, [[reward / temperature for reward in row] for row in REWARDS])


def test_figures_of_pairs_by_hand() -> None:
    """Pairs: right; wrong; tie, wrong, wrong. The items without a pair count nowhere."""
    found = judged()
    assert found.figures["accuracy"].value == pytest.approx(1.5 / 5)
    assert found.figures["accuracy"].n == 5
    assert found.figures["best"].value == pytest.approx(1 / 3)
    assert found.figures["best"].n == 3
    assert found.figures["margin"].value == pytest.approx((2 - 2 + 0 - 4 - 4) / 5)
    assert found.credits == [1.0, 0.0, pytest.approx(0.5 / 3), None, None]
    for name in ("accuracy", "best", "margin"):
        assert found.figures[name].low <= found.figures[name].value <= found.figures[name].high


def test_calibration_is_of_margins_and_of_the_artifacts_own_probabilities() -> None:
    found = judged(temperature=4.0).figures
    gaps = np.array([2, -2, 0, -4, -4.0])
    for suffix, values in (("", gaps), ("_scaled", gaps / 4)):
        wanted = compute_calibration_errors(values)
        assert [found[f"{name}{suffix}"].value for name in ("ece", "ace", "mce")] == pytest.approx(
            [wanted.ece, wanted.ace, wanted.mce]
        )
    assert found["ece_scaled"].value < found["ece"].value


def test_accuracy_by_length() -> None:
    rows = judged().tables["length"]
    assert {name: (row["accuracy"].value, row["accuracy"].n) for name, row in rows.items()} == {
        LONGER: (1.0, 1),
        SHORTER: (0.0, 1),
        EVEN: (pytest.approx(0.5 / 3), 3),
    }


def test_accuracy_by_subset_and_file() -> None:
    found = judged()
    assert "file" not in found.tables  # there is one
    rows = found.tables["subset"]
    assert rows["a"]["accuracy"].value == 1
    assert rows["b"]["accuracy"].value == pytest.approx(0.5 / 4)
    assert (rows["b"]["best"].value, rows["b"]["best"].n) == (0, 2)
    assert rows["a"]["margin"].value == 2
    two = judge_items([item([1, 0], file="one"), item([1, 0], file="two")], [[1, 0], [0, 1]], [[1, 0], [0, 1]])
    assert {name: row["accuracy"].value for name, row in two.tables["file"].items()} == {"one": 1, "two": 0}


def test_one_pair_an_item_has_wilsons_interval_and_more_have_the_bootstraps() -> None:
    items = [item([1, 0]) for _ in range(9)]
    rewards = [[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 3
    found = judge_items(items, rewards, rewards).figures["accuracy"]
    assert found == estimate_share([1.0] * 6 + [0.0] * 3)
    assert judged().figures["accuracy"].low != estimate_share([1, 0, 0.5, 0, 0]).low


def test_pairs_of_one_prompt_do_not_narrow_the_interval() -> None:
    """Ten prompts whose 45 pairs are all right or all wrong are ten observations, not 450."""
    items = [item(list(range(10))) for _ in range(10)]
    rewards: list[list[float]] = [list(map(float, range(10)))] * 7 + [list(map(float, range(10, 0, -1)))] * 3
    found = judge_items(items, rewards, rewards).figures["accuracy"]
    assert found.value == pytest.approx(0.7)
    assert found.n == 450
    assert found.high - found.low > 0.4


def test_a_longer_answer_that_wins_is_a_length_bias() -> None:
    items = [item([1, 0], ["x" * length, "x"]) for length in (10, 20, 30, 40)]
    rewards = [[float(len(one.answers[0][0]["content"])), 1.0] for one in items]
    assert judge_items(items, rewards, rewards).figures["length_correlation"].value == pytest.approx(1)


def test_a_model_that_tells_nothing_apart_gets_one_half() -> None:
    found = judge_items([item([1, 0]), item([0, 1])], [[1, 1], [1, 1]], [[1, 1], [1, 1]])
    assert found.figures["accuracy"].value == 0.5
    assert found.figures["best"].value == 0.5
    assert math.isnan(found.figures["length_correlation"].value)


def test_credits_are_each_items_share() -> None:
    assert credit_items(flatten_pairs(ITEMS, REWARDS, REWARDS)) == judged().credits


def test_ratings_are_correlated_with_rewards() -> None:
    """Rewards that fall as the ratings rise; an item that nobody rated says nothing."""
    rated = [replace(item([1, 0]), attributes={"gpt": (float(n), 0.0)}) for n in range(1, 9)]
    rewards = [[-float(n), 0.0] for n in range(1, 9)] + [[99.0, 0.0]]
    rows = judge_items([*rated, item([1, 0])], rewards, rewards).tables["rating"]
    assert set(rows) == {"gpt"}
    assert rows["gpt"]["gap_spearman"].value == pytest.approx(-1)
    assert (rows["gpt"]["spearman"].n, rows["gpt"]["gap_kendall"].n) == (16, 8)


def test_scores_are_ratings_where_they_have_more_than_two_levels() -> None:
    found = judged().tables["rating"]
    assert set(found) == {"scores"}
    two = judge_items([item([1, 0])] * 3, [[1, 0]] * 3, [[1, 0]] * 3)
    assert "rating" not in two.tables
