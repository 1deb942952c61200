"""Reward tags: where the rewards that a prompt asks for come from, and every refusal."""

from typing import Any

import pytest
from serve.counting import RENDERER, reward, steered_family
from serve.test_generation_plan import chat, completion

from tureen.errors import InvalidRequest, TureenError, Unprocessable
from tureen_core.steering import TaggedReward, TagSteering
from tureen_serve.generation.plan import Plan, plan_generation

STEERING = TagSteering(
    family="ric",
    objectives=[
        TaggedReward(name=name, data="", mean=0, deviation=1, low=-4, high=4) for name in ("calm", "funny", "brave")
    ],
)
FAMILIES = {"ric": steered_family(STEERING)}
REWARDS = {name: reward(name) for name in ("calm", "funny")}
EVEN = {"calm": 1.0, "brave": 1.0}
ALL = {"calm": 1.5, "funny": -0.04, "brave": 4.0}


def planned(**fields: Any) -> Plan:
    return plan_generation(chat(**fields), FAMILIES, REWARDS)


def refused(kind: type[TureenError], **fields: Any) -> TureenError:
    with pytest.raises(kind) as caught:
        planned(**fields)
    assert type(caught.value) is kind
    return caught.value


@pytest.mark.parametrize(
    ("fields", "rewards"),
    [
        ({"preferences": EVEN}, {"calm": 1.7, "funny": -4.0, "brave": 1.7}),
        ({"preferences": EVEN, "mapping": "linf"}, {"calm": 4.0, "funny": -4.0, "brave": 4.0}),
        ({"preferences": EVEN, "mapping": "linear"}, {"calm": 0.0, "funny": -4.0, "brave": 0.0}),
        ({"model": "ric:calm=0.5+brave=0.5"}, {"calm": 1.7, "funny": -4.0, "brave": 1.7}),
        ({"model": "ric:first"}, {"calm": 4.0, "funny": -4.0, "brave": -4.0}),
        ({"preset": "first", "preferences": {"calm": 3}}, {"calm": 4.0, "funny": -4.0, "brave": -4.0}),
        ({}, {"calm": 4.0, "funny": -4.0, "brave": -4.0}),
        ({"desired_rewards": ALL}, {"calm": 1.5, "funny": 0.0, "brave": 4.0}),
    ],
)
def test_rewards_come_from_weights_or_from_the_request(fields: dict[str, Any], rewards: dict[str, float]) -> None:
    found = planned(**fields)
    mapping = fields.get("mapping", "l2")
    assert found.steering == {"method": "reward-tags", "mapping": mapping, "desired_rewards": rewards}
    tags = " ".join(f"<rm{at}_score> {value:.1f}" for at, value in enumerate(rewards.values(), start=1))
    assert found.steer_messages([{"role": "user", "content": "hi"}]) == [[{"role": "user", "content": f"hi {tags}"}]]
    assert found.steer_text("hi") == [f"hi {tags}"]


def test_a_sweep_of_either_kind_has_a_prompt_for_each() -> None:
    kinds: list[dict[str, Any]] = [
        {"preferences": [{"calm": 1}, {"funny": 1}]},
        {"desired_rewards": [ALL, {**ALL, "calm": 0}]},
    ]
    for fields in kinds:
        found = planned(**fields)
        asked = [each.told["desired_rewards"] for each in found.variations]
        assert found.steering["desired_rewards"] == asked
        assert len(set(found.steer_text("hi"))) == 2
        assert isinstance(found.preferences, list)


def test_the_fingerprint_covers_the_tags_and_not_the_way_to_them() -> None:
    same: list[dict[str, Any]] = [{"preferences": EVEN}, {"desired_rewards": {"calm": 1.7, "funny": -4, "brave": 1.7}}]
    other: list[dict[str, Any]] = [
        {"preferences": EVEN, "mapping": "linf"},
        {"preferences": [EVEN, EVEN]},
        {"desired_rewards": ALL},
    ]
    found = [planned(**fields).fingerprint for fields in (*same, *other)]
    assert found[0] == found[1]
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"preferences": EVEN}, "preferences"),
        ({"preset": "first"}, "preset"),
        ({"mapping": "l2"}, "mapping"),
        ({"model": "ric:calm=1"}, "model"),
        ({"model": "ric:first"}, "model"),
    ],
)
def test_rewards_and_weights_exclude_each_other(fields: dict[str, Any], param: str) -> None:
    error = refused(InvalidRequest, desired_rewards=ALL, **fields)
    assert (error.param, error.code) == (param, "conflicting_preferences")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"desired_rewards": {**ALL, "calm": 4.1}}, "desired_rewards.calm"),
        ({"desired_rewards": {"calm": 1}}, "desired_rewards.funny"),
        ({"desired_rewards": [ALL, {**ALL, "dour": 1}]}, "desired_rewards[1].dour"),
        ({"desired_rewards": {}}, "desired_rewards.calm"),
        ({"preferences": {"calm": -1}}, "preferences.calm"),
        ({"preferences": {"dour": 1}}, "preferences.dour"),
        ({"soup": {"normalize": "none"}}, "soup"),
        ({"desired_rewards": ALL, "candidates": {}}, "candidates.preferences"),
    ],
)
def test_what_cannot_be_asked_for_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(Unprocessable, **fields).param == param


def test_candidates_are_judged_by_the_weights_or_by_those_of_their_own() -> None:
    (variation,) = planned(preferences={"calm": 1, "brave": 1}, candidates={}).variations
    assert variation.judges == {"calm": 1.0}
    (variation,) = planned(desired_rewards=ALL, candidates={"preferences": {"funny": 1}}).variations
    assert variation.judges == {"funny": 1.0}


def test_an_answer_that_has_begun_is_refused() -> None:
    border = RENDERER.frame.turn_border
    found = plan_generation(completion(model="ric"), FAMILIES, REWARDS)
    assert found.steer_text(f"hi{border}")[0].endswith(border)
    with pytest.raises(Unprocessable, match="goes on after its beginning") as caught:
        found.steer_text(f"hi{border}Well,")
    assert caught.value.param == "prompt"
