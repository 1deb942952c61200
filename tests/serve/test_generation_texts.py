"""Every text that is to be written: its order and seed, how its tokens are drawn, and what fits the context."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve.counting import CONTEXT, RENDERER, steered_family
from serve.test_generation_plan import FAMILIES, REWARDS, chat, completion

from tureen.errors import Unprocessable
from tureen_core.steering import PromptSteering
from tureen_serve.generation.plan import plan_generation
from tureen_serve.generation.texts import DEFAULT_TOKENS, fit_prompt, plan_texts
from tureen_serve.runtimes.upstream_contract import SpokenPrompt


def test_every_text_in_order_with_a_seed_of_its_own() -> None:
    request = completion(prompt=["a", "b"], n=2, preferences=[{"calm": 1}, {"funny": 1}], candidates={"n": 3}, seed=100)
    found = plan_texts(request, plan_generation(request, FAMILIES, REWARDS), [[[1]], [[2, 3]]])
    assert [text.sampling.seed for text in found] == list(range(100, 124))
    assert [text.number for text in found] == [0] * 12 + [1] * 12
    assert [next(iter(text.variation.weights)) for text in found] == (["calm"] * 6 + ["funny"] * 6) * 2
    assert [text.prompt for text in found] == [[1]] * 12 + [[2, 3]] * 12


def test_without_a_seed_there_is_none() -> None:
    request = chat(n=3)
    assert {
        text.sampling.seed for text in plan_texts(request, plan_generation(request, FAMILIES, REWARDS), [[[1]]])
    } == {None}


def test_how_tokens_are_drawn_is_as_the_request_says() -> None:
    request = chat(
        temperature=0.5,
        top_p=0.9,
        stop="END",
        top_k=-1,
        min_p=0.25,
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1.5,
        logit_bias={"3": 7, "0": -100},
        max_tokens=9,
    )
    (text,) = plan_texts(request, plan_generation(request, FAMILIES, REWARDS), [[[1]]])
    sampling = text.sampling
    assert (sampling.temperature, sampling.top_p, sampling.stop, sampling.max_tokens) == (0.5, 0.9, ("END",), 9)
    assert (sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (0, 0.25, 1.5)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
    assert sampling.logit_bias == ((3, 7.0), (0, -100.0))


@pytest.mark.parametrize(
    ("request_", "logprobs"),
    [
        (chat(), None),
        (chat(logprobs=True), 0),
        (chat(logprobs=True, top_logprobs=4), 4),
        (completion(), None),
        (completion(logprobs=0), 0),
        (completion(logprobs=3), 3),
    ],
)
def test_both_forms_of_logprobs(request_: Any, logprobs: int | None) -> None:
    (text,) = plan_texts(request_, plan_generation(request_, FAMILIES, REWARDS), [[[1]]])
    assert text.sampling.logprobs == logprobs


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"-1": 1}}, "logit_bias.-1"),
        ({"logit_bias": {"100000000": 1}}, "logit_bias.100000000"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logit_bias": {"1": float("nan")}}, "logit_bias.1"),
    ],
)
def test_sampling_that_cannot_be_is_named(fields: dict[str, Any], param: str) -> None:
    request = chat(**fields)
    with pytest.raises(Unprocessable) as caught:
        plan_texts(request, plan_generation(request, FAMILIES, REWARDS), [[[1]]])
    assert caught.value.param == param


# --------------------------------------------------------------------------- room


def test_a_chat_may_use_what_is_left_up_to_a_bound() -> None:
    assert fit_prompt(chat(), range(10), CONTEXT) == (range(10), CONTEXT - 10)
    assert fit_prompt(chat(), range(10), 4096) == (range(10), DEFAULT_TOKENS)
    assert fit_prompt(chat(max_tokens=7), range(10), CONTEXT)[1] == 7
    assert fit_prompt(chat(max_tokens=7, max_completion_tokens=8), range(10), CONTEXT)[1] == 8


def test_a_completion_is_sixteen_tokens_unless_told() -> None:
    assert fit_prompt(completion(), range(10), CONTEXT)[1] == 16
    assert fit_prompt(completion(), range(CONTEXT - 3), CONTEXT)[1] == 3
    assert fit_prompt(completion(max_tokens=20), range(10), CONTEXT)[1] == 20


@pytest.mark.parametrize(
    ("request_", "length", "param"),
    [
        (chat(), CONTEXT, "messages"),
        (chat(), 10 * CONTEXT, "messages"),
        (completion(), CONTEXT, "prompt"),
        (chat(max_tokens=100), CONTEXT - 50, "max_tokens"),
        (chat(max_completion_tokens=100), CONTEXT - 50, "max_completion_tokens"),
        (chat(max_tokens=100), CONTEXT + 50, "messages"),
        (chat(max_tokens=CONTEXT), 1, "max_tokens"),
        (chat(max_tokens=CONTEXT, truncate=True), 1, "max_tokens"),
    ],
)
def test_what_does_not_fit_is_named_with_both_numbers(request_: Any, length: int, param: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        fit_prompt(request_, range(length), CONTEXT)
    assert (caught.value.param, caught.value.code) == (param, "context_length_exceeded")
    assert f"this model's maximum context length is {CONTEXT} tokens" in caught.value.message
    assert ("prompt is too long" in caught.value.message) == (request_.limit() != CONTEXT)


def test_truncation_keeps_the_end_and_the_room_that_was_asked_for() -> None:
    ids, room = fit_prompt(chat(truncate=True, max_tokens=50), range(1000), CONTEXT)
    assert (list(ids), room) == (list(range(1000 - 150, 1000)), 50)
    ids, room = fit_prompt(chat(truncate=True), range(1000), CONTEXT)
    assert (len(ids), ids[-1], room) == (100, 999, 100)


@given(st.integers(0, 400), st.none() | st.integers(1, 400), st.booleans(), st.integers(2, 300))
def test_prompt_and_answer_always_fit(length: int, asked: int | None, truncate: bool, context: int) -> None:
    request = chat(truncate=truncate, **({} if asked is None else {"max_tokens": asked}))
    try:
        ids, room = fit_prompt(request, range(length), context)
    except Unprocessable:
        assert not truncate or (asked or 0) >= context
    else:
        assert room >= 1
        assert len(ids) + room <= context
        assert asked is None or room == asked
        assert list(ids) == list(range(length))[length - len(ids) :]
        assert truncate or len(ids) == length


def test_the_vocabulary_of_a_bias_is_the_familys() -> None:
    last = len(RENDERER.tokenizer) - 1
    request = chat(logit_bias={str(last): 1})
    (text,) = plan_texts(request, plan_generation(request, FAMILIES, REWARDS), [[[1]]])
    assert text.sampling.logit_bias == ((last, 1.0),)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, False),
        ({"place": "system"}, True),
        ({"template": "{sentences} {message}"}, True),
    ],
)
def test_what_steers_a_prompt_is_not_cut_off_in_silence(change: dict[str, str], refused: bool) -> None:
    said = {"family": "said", "sentences": {"calm": "Be calm."}, **change}
    families = {"said": steered_family(PromptSteering.model_validate(said))}
    request = chat(truncate=True, preferences={"calm": 1})
    planned, long = plan_generation(request, families, REWARDS), [[[1] * (CONTEXT + 1)]]
    assert plan_texts(request, planned, [[[1] * 9]])
    if not refused:
        prompt = plan_texts(request, planned, long)[0].prompt
        assert not isinstance(prompt, SpokenPrompt)
        assert len(prompt) < CONTEXT
        return
    with pytest.raises(Unprocessable, match="would cut off the beginning of the prompt") as caught:
        plan_texts(request, planned, long)
    assert caught.value.param == "truncate"
