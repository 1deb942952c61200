"""Words: which sentences a prompt says, what is told of them, and every refusal."""

from typing import Any

import pytest
from serve.counting import RENDERER, reward, steered_family
from serve.test_generation_plan import chat, completion

from tureen.errors import TureenError, Unprocessable
from tureen_core.steering import PromptSteering
from tureen_serve.generation.plan import Plan, plan_generation

SENTENCES = {"calm": "Be calm.", "funny": "Be funny.", "brave": "Be brave."}
STEERING = PromptSteering.model_validate({"family": "said", "sentences": SENTENCES, "threshold": 0.2})
FAMILIES = {"said": steered_family(STEERING)}
REWARDS = {name: reward(name) for name in ("calm", "funny")}


def planned(**fields: Any) -> Plan:
    return plan_generation(chat(**fields), FAMILIES, REWARDS)


def refused(**fields: Any) -> TureenError:
    with pytest.raises(Unprocessable) as caught:
        planned(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "sentences"),
    [
        ({"preferences": {"calm": 1, "funny": 2}}, ["Be funny.", "Be calm."]),
        ({"preferences": {"calm": 1, "funny": 9}}, ["Be funny."]),
        ({"model": "said:brave=0.5+calm=0.5"}, ["Be calm.", "Be brave."]),
        ({"preset": "first"}, ["Be calm."]),
        ({}, []),
    ],
)
def test_weights_from_any_place_choose_the_sentences(fields: dict[str, Any], sentences: list[str]) -> None:
    found = planned(**fields)
    assert found.steering == {"method": "prompt", "threshold": 0.2, "sentences": sentences}
    said = " ".join(["hi", *sentences])
    assert found.steer_messages([{"role": "user", "content": "hi"}]) == [[{"role": "user", "content": said}]]
    assert found.steer_text("hi") == [said]


def test_a_sweep_says_something_of_its_own_in_each_prompt() -> None:
    found = planned(preferences=[{"calm": 1}, {"brave": 1}])
    assert found.steering["sentences"] == [["Be calm."], ["Be brave."]]
    assert found.steer_text("hi") == ["hi Be calm.", "hi Be brave."]
    assert len({found.fingerprint, *(planned(preferences={name: 1}).fingerprint for name in SENTENCES)}) == 4


def test_equal_sentences_have_an_equal_fingerprint() -> None:
    weights: list[dict[str, float]] = [{"calm": 1, "funny": 3}, {"calm": 0.3, "funny": 0.7}]
    assert len({planned(preferences=each).fingerprint for each in weights}) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"desired_rewards": {"calm": 1}}, "desired_rewards"),
        ({"mapping": "l2"}, "mapping"),
        ({"soup": {"semantics": "delta"}}, "soup"),
        ({"preferences": {"calm": -1}}, "preferences.calm"),
        ({"preferences": [{"calm": 1}, {"dour": 1}]}, "preferences[1].dour"),
    ],
)
def test_what_means_nothing_here_is_named(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def test_weights_that_say_nothing_are_refused_where_they_stand() -> None:
    strict = STEERING.model_copy(update={"threshold": 0.6})
    families = {"said": steered_family(strict)}
    for fields, param in (
        ({"preferences": [{"calm": 1}, {"calm": 1, "funny": 1}]}, "preferences[1]"),
        ({"model": "said:calm=0.5+funny=0.5"}, "model"),
    ):
        with pytest.raises(Unprocessable, match=r"no weight reaches 0\.6") as caught:
            plan_generation(chat(**fields), families, REWARDS)
        assert caught.value.param == param


def test_a_prompt_that_nothing_is_said_in_stays_as_it_is() -> None:
    border = RENDERER.frame.turn_border
    begun = f"hi{border}Well,"
    assert plan_generation(completion(), FAMILIES, REWARDS).steer_text(begun) == [begun]
    with pytest.raises(Unprocessable, match="goes on after its beginning"):
        plan_generation(completion(preset="first"), FAMILIES, REWARDS).steer_text(begun)


def test_candidates_are_judged_by_the_weights() -> None:
    (variation,) = planned(preferences={"calm": 1, "brave": 1}, candidates={}).variations
    assert variation.judges == {"calm": 1.0}
