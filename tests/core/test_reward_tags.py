"""Reward tags: the published vectors of the mapping, the bounds, and where the tags stand."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen.errors import Unprocessable
from tureen_core.reward_tags import (
    check_desired_rewards,
    map_preferences,
    round_range,
    round_reward,
    tag_messages,
    tag_text,
    write_tags,
)
from tureen_core.steering import Mapped, TaggedReward, TagSteering


def ranges(count: int, low: float = -4.0, high: float = 4.0) -> list[TaggedReward]:
    return [TaggedReward(name=f"o{index}", data="", mean=0, deviation=1, low=low, high=high) for index in range(count)]


def steering(count: int = 2, **changes: Any) -> TagSteering:
    return TagSteering(family="ric", objectives=ranges(count), **changes)


def mapped(mapping: Mapped, *weights: float, low: float = -4.0, high: float = 4.0) -> tuple[float, ...]:
    given = {f"o{index}": weight for index, weight in enumerate(weights)}
    return tuple(map_preferences(given, ranges(len(weights), low, high), mapping).values())


@pytest.mark.parametrize(
    ("weights", "linf", "l2", "linear"),
    [
        ((0.1, 0.9), (-2.4, 4.0), (-3.1, 4.0), (-3.2, 3.2)),
        ((0.3, 0.7), (0.8, 4.0), (-0.8, 3.4), (-1.6, 1.6)),
        ((0.5, 0.5), (4.0, 4.0), (1.7, 1.7), (0.0, 0.0)),
        ((0.33, 0.33, 0.33), (4.0, 3.9, 3.9), (0.6, 0.6, 0.6), (-1.4, -1.4, -1.4)),
        ((0.8, 0.1, 0.1), (4.0, -1.6, -1.6), (3.9, -3.0, -3.0), (2.4, -3.2, -3.2)),
        ((1.0,), (4.0,), (4.0,), (4.0,)),
        ((0.0, 1.0), (-4.0, 4.0), (-4.0, 4.0), (-4.0, 4.0)),
    ],
)
def test_the_published_vectors(weights: Any, linf: Any, l2: Any, linear: Any) -> None:
    assert mapped("linf", *weights) == linf
    assert mapped("l2", *weights) == l2
    assert mapped("linear", *weights) == linear


def test_each_objective_has_its_own_range() -> None:
    rewards = [*ranges(1), TaggedReward(name="humor", data="", mean=0, deviation=1, low=-1.0, high=3.0)]
    assert map_preferences({"humor": 1.0}, rewards, "linear") == {"o0": -4.0, "humor": 3.0}
    assert map_preferences({"o0": 0.5, "humor": 0.5}, rewards, "linear") == {"o0": 0.0, "humor": 1.0}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda given: sum(given) > 1e-3), st.integers(0, 3))
def test_any_number_of_objectives_stays_in_range_and_is_rounded(given_weights: list[float], decimals: int) -> None:
    weights = {f"o{index}": weight / sum(given_weights) for index, weight in enumerate(given_weights)}
    asked: tuple[Mapped, ...] = ("l2", "linf", "linear")
    for mapping in asked:
        found = map_preferences(weights, ranges(len(weights)), mapping, decimals)
        assert all(-4 <= each <= 4 and each == round(each, decimals) for each in found.values())
        assert all(math.copysign(1, each) == 1 for each in found.values() if each == 0)
        largest = max(weights, key=weights.__getitem__)
        assert found[largest] == max(found.values())


def test_there_is_no_minus_zero() -> None:
    """The original writes "-0.0" into prompts, which its training data has beside "0.0"."""
    assert math.copysign(1, round_reward(-0.04, 1)) == 1
    assert write_tags({"o0": -0.04, "o1": -0.0}, steering()) == "<rm1_score> 0.0 <rm2_score> 0.0 "
    assert write_tags({"o0": -0.4, "o1": 0.6}, steering(decimals=0)) == "<rm1_score> 0 <rm2_score> 1 "


@pytest.mark.parametrize(
    ("low", "high", "decimals", "rounded"),
    [
        (-4.26, 4.26, 1, (-4.2, 4.2)),
        (-4.2, 4.2, 1, (-4.2, 4.2)),
        (-0.04, 1.0, 1, (0.0, 1.0)),
        (-1.239, 0.301, 2, (-1.23, 0.3)),
        (-1.2, 2.9, 0, (-1.0, 2.0)),
    ],
)
def test_a_range_is_rounded_inwards(low: float, high: float, decimals: int, rounded: tuple[float, float]) -> None:
    assert round_range(low, high, decimals) == rounded
    assert "-0.0" not in map(str, round_range(low, high, decimals))


def test_desired_rewards_are_rounded_and_in_the_order_of_the_tags() -> None:
    assert list(check_desired_rewards({"o1": 1.26, "o0": -4}, steering()).items()) == [("o0", -4.0), ("o1", 1.3)]


@pytest.mark.parametrize(
    ("desired", "param", "message"),
    [
        ({"o0": 1.0}, "desired_rewards.o1", "no reward for 'o1': each prompt has a tag for each of o0, o1"),
        ({"o0": 1.0, "o1": 1.0, "o2": 1.0}, "desired_rewards.o2", "unknown objective 'o2'; known: o0, o1"),
        ({"o0": 4.1, "o1": 1.0}, "desired_rewards.o0", "4.1 for 'o0' is beyond what the policy was trained on"),
        ({"o0": 1.0, "o1": -4.04}, "desired_rewards.o1", "send -4 to 4, in standard deviations"),
        ({"o0": math.nan, "o1": 1.0}, "desired_rewards.o0", "is beyond"),
        ({"o0": math.inf, "o1": 1.0}, "desired_rewards.o0", "is beyond"),
        ({}, "desired_rewards.o0", "no reward for 'o0'"),
    ],
)
def test_rewards_that_cannot_be_asked_for(desired: dict[str, float], param: str, message: str) -> None:
    """The original extrapolates in silence."""
    with pytest.raises(Unprocessable, match=message) as found:
        check_desired_rewards(desired, steering())
    assert found.value.param == param


def test_tags_stand_at_the_end_of_the_users_last_message() -> None:
    talk = [
        {"role": "user", "content": "<rm1_score> is what?"},
        {"role": "assistant", "content": "A tag."},
        {"role": "user", "content": "  How do I boil an egg? \n"},
    ]
    made = tag_messages(talk, {"o0": 0.4, "o1": 1.2}, steering())
    assert made == [*talk[:2], {"role": "user", "content": "  How do I boil an egg? <rm1_score> 0.4 <rm2_score> 1.2"}]
    assert talk[2]["content"] == "  How do I boil an egg? \n"


def test_tags_may_stand_in_the_systems_message() -> None:
    asked, own = {"role": "user", "content": "Hi"}, steering(1, place="system", tag="<{name}={score}>")
    assert tag_messages([asked], {"o0": -1.5}, own) == [{"role": "system", "content": "<o0=-1.5>"}, asked]
    told = {"role": "system", "content": "You are a cook."}
    assert tag_messages([told, asked], {"o0": 0}, own)[0]["content"] == "You are a cook. <o0=0.0>"
    with pytest.raises(Unprocessable, match="send messages to /v1/chat/completions"):
        tag_text("Hi", {"o0": 0}, own)


def test_tags_need_a_message_of_the_user() -> None:
    with pytest.raises(Unprocessable, match="no message of the user") as found:
        tag_messages([{"role": "system", "content": "x"}], {"o0": 0, "o1": 0}, steering())
    assert found.value.param == "messages"


def test_tags_stand_before_the_marker_of_a_bare_prompt() -> None:
    prompt = "\n\nHuman: How do I boil an egg? \n\nAssistant:"
    made = tag_text(prompt, {"o0": 0.4, "o1": 1.2}, steering(), "\n\nAssistant:")
    assert made == "\n\nHuman: How do I boil an egg? <rm1_score> 0.4 <rm2_score> 1.2 \n\nAssistant:"


def test_a_marker_is_removed_as_a_whole() -> None:
    """The original strips the marker's set of letters, and eats the end of the post."""
    marker = "### Response: "
    made = tag_text(f"A post on responses {marker}", {"o0": 1.0}, steering(1), marker)
    assert made == f"A post on responses <rm1_score> 1.0 {marker}"
    assert tag_text("responses", {"o0": 1.0}, steering(1), marker) == "responses <rm1_score> 1.0"


def test_the_template_of_a_tag_is_filled_once() -> None:
    """A name or a number is never read as a part of the template."""
    own = steering(2, tag="[{index}:{name}:{score}:{index}]", decimals=2)
    assert write_tags({"o0": 1, "o1": -2.5}, own) == "[1:o0:1.00:1][2:o1:-2.50:2]"
