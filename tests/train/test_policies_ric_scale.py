"""The scale of rewards: statistics by hand and as published, rounding, ranges, and failures that are no numbers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tureen_core.steering import TaggedReward, TagSteering
from tureen_train.config import RecipeError, RicPolicy
from tureen_train.policies.ric.scale import find_published_range, measure_scale, normalise_data, normalise_own
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.rounds import Answered, Written

PUBLISHED = TagSteering(
    family="ric",
    objectives=[
        TaggedReward(name="harmless", data="", mean=-0.94732502, deviation=1.92034349, low=-4.2, high=4.2),
        TaggedReward(name="helpful", data="", mean=-0.01500361, deviation=1.40736504, low=-4.2, high=4.2),
    ],
)


def policy(**changes: Any) -> RicPolicy:
    return RicPolicy.model_validate({"method": "ric", **changes})


def reward(*values: float | None) -> Reward:
    named = {f"o{at}": value for at, value in enumerate(values) if value is not None}
    whole = len(named) == len(values)
    return Reward(named, 0.0 if whole else None, "" if whole else "o1: it failed")


def answered(rewards: Sequence[Reward]) -> Answered:
    prompts = [Prompt(f"file:{at}", ({"role": "user", "content": f"why {at}?"},)) for at in range(len(rewards))]
    written = [[Written(Sample(each.id, 0, f"text of {each.id}"))] for each in prompts]
    return Answered(prompts, written, [[each] for each in rewards])


def measure(rewards: Sequence[Reward], count: int, **changes: Any) -> list[TaggedReward]:
    names = [f"o{at}" for at in range(count)]
    return measure_scale(answered(rewards), names, policy(**changes), dict.fromkeys(names, "a function"))


def test_the_published_example_and_its_text() -> None:
    raw = [[Reward({"harmless": 0.3, "helpful": 0.3}, 0.6)]]
    for normalise in (normalise_data, normalise_own):
        ((found,),) = normalise(raw, PUBLISHED, policy())
        assert {name: round(value, 1) for name, value in found.values.items()} == {"harmless": 0.6, "helpful": 0.2}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_statistics_are_those_of_float64_for_any_number_of_rewards(count: int) -> None:
    """The original is fixed to three rewards at most, and guesses the file of statistics by its length."""
    table = np.random.default_rng(1).normal(size=(40, count)) * 3 + 1
    found = measure([reward(*row) for row in table.tolist()], count, rounding="none")
    assert [each.mean for each in found] == pytest.approx(table.mean(0).tolist(), rel=1e-12)
    assert [each.deviation for each in found] == pytest.approx(table.std(0).tolist(), rel=1e-12)
    low, high = ((table.min(0) - table.mean(0)) / table.std(0)), ((table.max(0) - table.mean(0)) / table.std(0))
    for each, least, most in zip(found, low.tolist(), high.tolist(), strict=True):
        assert least <= each.low < least + 0.1
        assert most - 0.1 < each.high <= most


def test_raw_rewards_are_rounded_before_the_statistics() -> None:
    rows = [reward(value) for value in (0.04, 0.06, 1.02)]
    (found,) = measure(rows, 1)
    assert (found.mean, found.deviation) == pytest.approx((11 / 30, np.std([0.0, 0.1, 1.0])))
    steering = TagSteering(family="ric", objectives=[found])
    ((first,), *_) = normalise_data([[each] for each in rows], steering, policy())
    assert first.values["o0"] == pytest.approx((0.0 - found.mean) / found.deviation)
    ((own,), *_) = normalise_own([[each] for each in rows], steering, policy())
    assert own.values["o0"] == round((0.04 - found.mean) / found.deviation, 1)
    ((exact,), *_) = normalise_own([[each] for each in rows], steering, policy(rounding="none"))
    assert exact.values["o0"] == (0.04 - found.mean) / found.deviation


def test_a_failed_reward_is_left_out_and_never_a_zero() -> None:
    rows = [reward(1.0, 5.0), reward(3.0, 7.0), reward(100.0, None)]
    first, second = measure(rows, 2)
    assert (first.mean, second.mean, first.deviation) == (2.0, 6.0, 1.0)
    steering = TagSteering(family="ric", objectives=[first, second])
    *_, (failed,) = normalise_data([[each] for each in rows], steering, policy())
    assert failed.total is None
    assert failed.error == "o1: it failed"


def test_rewards_that_tell_nothing_apart_are_refused() -> None:
    with pytest.raises(RecipeError, match="o0 is 1 for all answers"):
        measure([reward(1.0), reward(1.0)], 1)
    with pytest.raises(RecipeError, match=r"no answer of data\.train has all rewards"):
        measure([reward(1.0, None)], 2)


def test_the_digest_is_of_the_answers_that_were_counted() -> None:
    rows = [reward(1.0), reward(3.0), reward(2.0)]
    (whole,), (part,) = measure(rows, 1), measure(rows[:2], 1)
    assert len(whole.data) == 64
    assert whole.data != part.data
    (again,) = measure([*rows[:2], Reward({}, None, "it failed")], 1)
    assert again.data != whole.data


def test_the_published_range_is_that_of_normal_draws() -> None:
    low, high = find_published_range()
    assert -4.8 < low < -3.8
    assert 3.8 < high < 4.8
    (found,) = measure([reward(0.0), reward(1.0)], 1, range="published")
    assert (found.low, found.high) == (low, high)
    (data,) = measure([reward(0.0), reward(1.0)], 1)
    assert (data.low, data.high) == (-1.0, 1.0)
    assert math.copysign(1, data.mean) == 1
