"""Shares of wins: by hand, and with failures. Pure."""

from itertools import combinations

import pytest

from tureen_train.judge.comparisons import Judgement
from tureen_train.policies.rollouts.valuing import Value
from tureen_train.policies.rollouts.wins import ALONE, share_wins


def test_shares_of_wins_by_hand() -> None:
    judged = [Judgement(1.0), Judgement(0.5), Judgement(0.25)]  # 0 against 1, 0 against 2, 1 against 2
    assert share_wins(3, judged) == [Value(0.75), Value(0.125), Value(0.625)]
    assert share_wins(1, []) == [Value(None, ALONE)]
    cut = [Judgement(1.0, truncated=True), Judgement(1.0), Judgement(1.0)]
    assert [each.truncated for each in share_wins(3, cut)] == [True, True, False]
    failed = [Judgement(1.0), Judgement(None, "lost"), Judgement(0.0)]
    assert share_wins(3, failed) == [Value(None, "lost"), Value(0.0), Value(None, "lost")]


def test_the_shares_of_a_prompt_sum_to_half_its_answers() -> None:
    for count in range(2, 7):
        judged = [Judgement((3 * one + other) % 5 / 4) for one, other in combinations(range(count), 2)]
        assert sum(each.number or 0.0 for each in share_wins(count, judged)) == pytest.approx(count / 2)
