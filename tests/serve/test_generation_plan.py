"""The plan: who wins of field, suffix, preset and default, what is refused, and every text to be written."""

import dataclasses
from typing import Any

import pytest
from serve.counting import family, reward

from tureen.errors import InvalidRequest, NotFound, TureenError, Unprocessable
from tureen.wire import ChatRequest, CompletionRequest
from tureen_serve.generation.plan import MOST_TEXTS, Plan, plan_generation

FAMILIES = {"words": family(), "rigid": family("rigid", "its experts have unequal ranks")}
REWARDS = {name: reward(name) for name in ("calm", "funny")}
MIX = {"calm": 1.0, "funny": 3.0}
MIXED = {"calm": 0.25, "funny": 0.75}


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"messages": [{"role": "user", "content": "hi"}], **fields})


def completion(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"prompt": "hi", **fields})


def planned(families: Any = FAMILIES, **fields: Any) -> Plan:
    return plan_generation(chat(**fields), families, REWARDS)


def refused(kind: type[TureenError], families: Any = FAMILIES, **fields: Any) -> TureenError:
    with pytest.raises(kind) as caught:
        planned(families, **fields)
    assert type(caught.value) is kind
    return caught.value


# --------------------------------------------------------------------------- which policy, which weights


def test_without_a_word_the_first_family_answers_by_its_default() -> None:
    found = planned()
    assert (found.family.name, found.model, found.preferences, found.experts) == ("words", "words", {}, {})
    with_default = {"words": dataclasses.replace(family(), default=MIX)}
    assert planned(with_default).preferences == MIXED


def test_the_model_names_a_family() -> None:
    assert planned(model="rigid").family.name == "rigid"
    assert planned(model="rigid").model == "rigid"


@pytest.mark.parametrize(
    "fields",
    [
        {"preferences": MIX},
        {"model": "words:calm=0.25,funny=0.75"},
        {"model": "words:calm=0.25+funny=0.75"},
        {"model": "words:calm=0.25;funny=0.75"},
        {"model": "words:even"} | {"preferences": {"calm": 2, "funny": 2}},
        {"preset": "playful"},
        {"model": "words:playful"},
        {"model": "words:playful", "preset": "playful", "preferences": {"funny": 0.1}},
    ],
)
def test_weights_come_from_any_of_four_places(fields: dict[str, Any]) -> None:
    expected = {"even": {"calm": 0.5, "funny": 0.5}, "playful": {"funny": 1.0}}
    name = fields.get("preset") or fields.get("model", "").partition(":")[2]
    assert planned(**fields).preferences == expected.get(name, MIXED)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"preferences": MIX, "model": "words:calm=1"}, "model"),
        ({"preferences": MIX, "preset": "playful"}, "preset"),
        ({"model": "words:calm=1", "preset": "playful"}, "preset"),
        ({"model": "words:even", "preset": "playful"}, "preset"),
        ({"preferences": [{"funny": 1}, {"calm": 1}], "preset": "playful"}, "preset"),
    ],
)
def test_two_that_disagree_are_a_400(fields: dict[str, Any], param: str) -> None:
    error = refused(InvalidRequest, **fields)
    assert (error.code, error.param) == ("conflicting_preferences", param)
    assert "different weights" in error.message


def test_a_sweep_may_repeat_what_the_preset_says() -> None:
    assert planned(preferences=[{"funny": 1}, {"funny": 2}], preset="playful").preferences == [{"funny": 1.0}] * 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "nobody"}, "model"),
        ({"model": "nobody:calm=1"}, "model"),
        ({"model": "calm"}, "model"),
        ({"model": ""}, "model"),
        ({"model": "words:dour"}, "model"),
        ({"preset": "dour"}, "preset"),
    ],
)
def test_an_unknown_model_or_preset_is_a_404_that_lists_the_known(fields: dict[str, Any], param: str) -> None:
    error = refused(NotFound, **fields)
    assert error.param == param
    assert "words" in error.message


def test_a_server_without_policies_says_so() -> None:
    assert "has loaded no policies" in refused(NotFound, {}).message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"preferences": {"angry": 1}}, "preferences.angry"),
        ({"preferences": {"calm": -1}}, "preferences.calm"),
        ({"preferences": {"calm": 0}}, "preferences"),
        ({"preferences": {}}, "preferences"),
        ({"preferences": {"calm": 1e6}, "soup": {"normalize": "none"}}, "preferences.calm"),
        ({"preferences": [{"calm": 1}, {"angry": 1}]}, "preferences[1].angry"),
        ({"model": "words:angry=1"}, "model.angry"),
    ],
)
def test_weights_that_mean_nothing_are_named(fields: dict[str, Any], param: str) -> None:
    assert refused(Unprocessable, **fields).param == param


@pytest.mark.parametrize("fields", [{"preferences": {"calm": -1}}, {"preferences": [{"calm": -1}]}])
def test_a_negative_weight_of_an_expert_is_told_the_field_that_allows_it(fields: dict[str, Any]) -> None:
    assert 'send `soup: {"normalize": "none"}` to subtract' in refused(Unprocessable, **fields).message
    planned(**fields, soup={"normalize": "none"})


def test_a_negative_weight_of_a_judge_is_told_the_field_that_allows_it() -> None:
    candidates = {"n": 2, "preferences": {"calm": 1, "funny": -0.5}}
    told = refused(Unprocessable, candidates=candidates)
    assert told.param == "candidates.preferences.funny"
    assert 'send `candidates: {"normalize": "none"}` to subtract' in told.message
    found = planned(candidates={**candidates, "normalize": "none"})
    assert found.variations[0].judges == {"calm": 1, "funny": -0.5}


def test_judges_are_weighed_as_the_experts_unless_the_request_says_otherwise() -> None:
    fields: dict[str, Any] = {"preferences": {"calm": 1.5, "funny": -0.5}, "soup": {"normalize": "none"}}
    assert planned(**fields, candidates={"n": 2}).variations[0].judges == {"calm": 1.5, "funny": -0.5}
    assert refused(Unprocessable, **fields, candidates={"normalize": "simplex"}).param == "candidates.preferences.funny"


def test_a_suffix_that_cannot_be_read_is_a_400() -> None:
    assert refused(InvalidRequest, model="words:calm=much").param == "model"


@pytest.mark.parametrize(
    ("suffix", "total"), [("calm=0.7", "0.7"), ("calm=1,funny=3", "4"), ("calm=0.33+funny=0.33+brave=0.33", "0.99")]
)
def test_a_suffix_whose_weights_do_not_add_up_to_1_may_have_been_cut(suffix: str, total: str) -> None:
    error = refused(Unprocessable, model=f"words:{suffix}")
    assert error.param == "model"
    assert f"the weights in 'words:{suffix}' add up to {total}; write weights that add up to 1" in error.message
    assert "a client has cut the text at a comma" in error.message
    assert planned(model=f"words:{suffix}", soup={"normalize": "none"}).variations


@pytest.mark.parametrize("suffix", ["calm=1", "calm=0.333+funny=0.333+brave=0.333", "calm=0.166+funny=0.834"])
def test_weights_of_a_suffix_may_be_rounded(suffix: str) -> None:
    assert sum(planned(model=f"words:{suffix}").variations[0].weights.values()) == pytest.approx(1, abs=1e-5)


# --------------------------------------------------------------------------- how it is steered


def test_a_soup_is_as_the_family_says_unless_the_request_does() -> None:
    own = {"words": dataclasses.replace(family(), semantics="factor", normalize="none")}
    assert planned(own).steering == {"method": "soup", "semantics": "factor", "normalize": "none"}
    assert planned(own, soup={"normalize": "simplex"}).method.normalize == "simplex"
    assert planned(own, soup={"normalize": "simplex"}).method.semantics == "factor"
    assert planned(soup={"semantics": "factor"}).method.semantics == "factor"


def test_weights_off_the_simplex_are_taken_as_they_are() -> None:
    found = planned(preferences={"calm": 1.5, "funny": -0.5, "brave": 0}, soup={"normalize": "none"})
    assert found.preferences == {"calm": 1.5, "funny": -0.5}
    assert planned(preferences={"calm": 0}, soup={"normalize": "none"}).preferences == {}


def test_factors_are_refused_with_the_familys_reason() -> None:
    error = refused(Unprocessable, model="rigid", soup={"semantics": "factor"})
    assert (error.param, "unequal ranks" in error.message) == ("soup.semantics", True)


def test_rewards_in_the_prompt_are_refused() -> None:
    assert refused(Unprocessable, desired_rewards={"calm": 1}).param == "desired_rewards"


def test_the_experts_that_take_part_are_told_with_their_versions() -> None:
    assert planned(preferences=[{"calm": 1}, {"calm": 1, "brave": 1}]).experts == {"brave": "brave-7", "calm": "calm-7"}


def test_the_fingerprint_covers_weights_order_and_semantics() -> None:
    sweep = [{"calm": 1}, {"funny": 1}]
    prints = [
        planned(preferences=MIX).fingerprint,
        planned(preferences={"calm": 1}).fingerprint,
        planned(preferences=MIX, soup={"semantics": "factor"}).fingerprint,
        planned(preferences=sweep).fingerprint,
        planned(preferences=sweep[::-1]).fingerprint,
        planned(preferences=MIX, model="rigid").fingerprint,
        planned().fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert planned(preferences=MIXED).fingerprint == prints[0]
    assert all(each.startswith("fp_") for each in prints)


# --------------------------------------------------------------------------- candidates


def test_candidates_are_judged_by_the_preferences_of_which_rewards_are_loaded() -> None:
    found = planned(preferences={"calm": 1, "brave": 3}, candidates={"n": 2})
    assert found.variations[0].weights == {"brave": 0.75, "calm": 0.25}
    assert found.variations[0].judges == {"calm": 1.0}


def test_each_variation_of_a_sweep_has_its_own_judges() -> None:
    found = planned(preferences=[{"calm": 1}, MIX], candidates={"n": 2})
    assert [each.judges for each in found.variations] == [{"calm": 1.0}, MIXED]


def test_or_by_preferences_of_their_own() -> None:
    found = planned(preferences={"brave": 1}, candidates={"n": 2, "preferences": MIX})
    assert found.variations[0].judges == MIXED


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"preferences": {"brave": 1}, "candidates": {}}, "candidates.preferences"),
        ({"candidates": {"n": 2}}, "candidates.preferences"),
        ({"candidates": {"preferences": {"brave": 1}}}, "candidates.preferences.brave"),
        ({"candidates": {"preferences": {}}}, "candidates.preferences"),
    ],
)
def test_nothing_to_judge_by_is_named(fields: dict[str, Any], param: str) -> None:
    error = refused(Unprocessable, **fields)
    assert error.param == param
    assert "calm, funny" in error.message


def test_without_candidates_nobody_judges() -> None:
    assert planned(preferences=MIX).variations[0].judges == {}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream": True, "candidates": {"preferences": MIX}}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_what_contradicts_itself_is_a_400(fields: dict[str, Any], param: str) -> None:
    assert refused(InvalidRequest, **fields).param == param


# --------------------------------------------------------------------------- texts


def test_the_number_of_texts_is_bounded() -> None:
    sweep = [{"calm": 1}] * 8
    planned(preferences=sweep, n=MOST_TEXTS // 8)
    error = refused(Unprocessable, preferences=sweep, n=MOST_TEXTS // 8 + 1)
    assert (error.param, str(MOST_TEXTS) in error.message) == ("n", True)
    refused(Unprocessable, preferences=sweep, n=8, candidates={"n": 5})
    with pytest.raises(Unprocessable):
        plan_generation(completion(prompt=["a"] * 9, preferences=sweep, n=4), FAMILIES, REWARDS)
