"""Where a chat's answer begins, and what the template is told of how much to think."""

from typing import Any

import pytest

from tureen.errors import InvalidRequest
from tureen_serve.api.chat_reading import find_opening, make_inputs
from tureen_serve.api.text_bodies import ChatBody

ASK = {"role": "user", "content": "hi"}
BEGUN = {"role": "assistant", "content": "Well,"}
THINKS = "{{ messages[0].content }}{% if enable_thinking %}</think>{% endif %}"
EFFORT = "{{ messages[0].content }}{{ reasoning_effort }}"


def chat(*messages: dict[str, str], **fields: Any) -> ChatBody:
    return ChatBody.model_validate({"messages": messages or (ASK,), **fields})


def test_the_policy_answers_goes_on_or_writes_whatever_follows() -> None:
    assert find_opening(chat()) == "answer"
    assert find_opening(chat(add_generation_prompt=False)) == "nothing"
    for more in ({}, {"add_generation_prompt": False}):
        assert find_opening(chat(ASK, BEGUN, continue_final_message=True, **more)) == "last message"


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        ((ASK, BEGUN), {"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt"),
        ((BEGUN, ASK), {"continue_final_message": True}, "messages[1].role"),
        ((ASK, BEGUN), {"add_generation_prompt": False, "candidates": {"n": 2}}, "add_generation_prompt"),
    ],
)
def test_contradictions_are_named(messages: Any, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        find_opening(chat(*messages, **fields))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("template", "effort", "given", "told", "read"),
    [
        (THINKS, "none", {}, {"enable_thinking": False}, True),
        (THINKS, "low", {}, {"enable_thinking": True}, True),
        (THINKS, "low", {"enable_thinking": False}, {"enable_thinking": False}, True),
        (EFFORT, "high", {}, {"reasoning_effort": "high"}, True),
        ("{{ messages }}", "high", {"a": 1}, {"a": 1}, False),
        (EFFORT, None, {}, {}, False),
    ],
)
def test_how_much_to_think_is_told_as_the_template_reads_it(
    template: str, effort: Any, given: dict[str, Any], told: dict[str, Any], read: bool
) -> None:
    inputs, found = make_inputs(chat(reasoning_effort=effort, chat_template_kwargs=given), None, template)
    assert (dict(inputs.arguments), found) == (told, read)
