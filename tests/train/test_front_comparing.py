"""A reward as a judge of two answers."""

from pathlib import Path
from typing import Any

import pytest

from tureen.records.dialogue import user_turn
from tureen_train.config import FunctionSource
from tureen_train.front.comparing import RewardComparer, share_win
from tureen_train.judge.comparisons import Comparison, Judgement
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.rollouts.rewards import open_rewarder

WHY = (user_turn("why?"),)


@pytest.fixture
def comparer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RewardComparer:
    (tmp_path / "long_answers.py").write_text(
        "def length(prompts, answers):\n    return [len(a) or None for a in answers]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source: Any = FunctionSource(source="function", function="long_answers:length", name="length", weight=1.0)
    return RewardComparer(open_rewarder([source], tmp_path))


def test_the_larger_reward_wins_in_both_orders_and_equal_ones_tie(comparer: RewardComparer) -> None:
    pairs = [Comparison(WHY, *each) for each in (("fox", "a fox"), ("abc", "xyz"), ("fox", "fox"), ("long one", "no"))]
    shares = [each.share for each in comparer.compare(pairs, ignore_progress)]
    turned = [each.share for each in comparer.compare([pair.turned for pair in pairs], ignore_progress)]
    assert shares == [0.0, 0.5, 0.5, 1.0]
    assert turned == [1.0, 0.5, 0.5, 0.0]


def test_an_answer_without_a_reward_decides_nothing(comparer: RewardComparer) -> None:
    (found,) = comparer.compare([Comparison(WHY, "fox", "")], ignore_progress)
    assert found.share is None
    assert found.error
    assert comparer.compare([Comparison(WHY, "", "")], ignore_progress) == [Judgement(0.5)]


def test_shares_of_numbers() -> None:
    assert [share_win(2, 1), share_win(1, 2), share_win(1, 1)] == [1.0, 0.0, 0.5]
