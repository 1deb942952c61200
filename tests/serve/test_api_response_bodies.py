"""Bodies of ``/v1/responses`` are read as chats, and every refusal names the field that was sent."""

from typing import Any

import pytest
from pydantic import ValidationError

from tureen.errors import InvalidRequest, Unprocessable
from tureen.validation import explain_errors
from tureen_serve.api.response_bodies import ResponseBody, name_field
from tureen_serve.api.text_bodies import ChatBody

TOOL = {"type": "function", "name": "get", "parameters": {"type": "object"}, "strict": True}


def chat(**body: Any) -> ChatBody:
    return ResponseBody.model_validate({"input": "hi", **body}).chat


def messages(**body: Any) -> list[dict[str, Any]]:
    return [each.plain() for each in chat(**body).messages]


def refused(**body: Any) -> InvalidRequest:
    """The error of a body, as the routes tell it."""
    given = {"input": "hi", **body}
    try:
        ResponseBody.model_validate(given)
    except ValidationError as error:
        return explain_errors(error.errors(include_url=False), given)
    except InvalidRequest as error:
        return error
    raise AssertionError("it was taken")


def test_a_text_is_the_users_and_instructions_are_the_systems() -> None:
    assert messages(instructions="be brief") == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]


def test_items_are_messages_calls_and_their_outputs() -> None:
    items = [
        {"role": "developer", "content": "be brief"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "weather"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "I look", "annotations": []}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "get", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": "c2", "name": "get", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sun"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "rain"}]},
    ]
    found = messages(input=items)
    assert [each["role"] for each in found] == ["system", "user", "assistant", "tool", "tool"]
    assert (found[2]["content"], found[2]["reasoning_content"]) == ("I look", "hm")
    assert [(call["id"], call["function"]["arguments"]) for call in found[2]["tool_calls"]] == [
        ("c1", '{"a": 1}'),
        ("c2", "{}"),
    ]
    assert [(each["tool_call_id"], each["content"]) for each in found[3:]] == [("c1", "sun"), ("c2", "rain")]


def test_openais_fields_are_those_of_a_chat() -> None:
    found = chat(
        model="words",
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.9,
        tools=[TOOL],
        tool_choice={"type": "function", "name": "get"},
        parallel_tool_calls=False,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        top_logprobs=2,
        metadata={"a": "b"},
        truncation="auto",
        user="me",
        stream=True,
        seed=3,
        stop=["x"],
        preferences={"calm": 1},
        candidates={"n": 2},
        soup={"semantics": "factor"},
        priority="batch",
    )
    assert (found.model, found.limit(), found.temperature, found.top_p) == ("words", 7, 0.5, 0.9)
    assert found.tools == [{"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}]
    assert found.tool_choice == {"type": "function", "function": {"name": "get"}}
    assert (found.parallel_tool_calls, found.logprobs, found.top_logprobs) == (False, True, 2)
    assert (found.metadata, found.truncate, found.user, found.seed, found.stop) == ({"a": "b"}, True, "me", 3, ["x"])
    assert (found.preferences, found.soup.semantics, found.priority) == ({"calm": 1}, "factor", "batch")
    assert found.candidates is not None
    assert found.candidates.n == 2
    assert found.stream_options is not None
    assert found.stream_options.include_usage


def test_a_format_is_the_response_format_of_a_chat() -> None:
    schema = {"type": "object"}
    told = {"type": "json_schema", "name": "a", "schema": schema, "strict": True}
    found = chat(text={"format": told}).response_format
    assert found is not None
    assert (found.type, found.json_schema) == ("json_schema", {"name": "a", "schema": schema, "strict": True})
    for kind in ("text", "json_object"):
        plain = chat(text={"format": {"type": kind}}).response_format
        assert plain is not None
        assert (plain.type, plain.json_schema) == (kind, None)


def test_what_asks_for_nothing_is_taken() -> None:
    neutral = {
        "background": False,
        "context_management": [],
        "max_tool_calls": 3,
        "previous_response_id": None,
        "prompt_cache_key": "x",
        "prompt_cache_retention": "24h",
        "reasoning": {"effort": "none", "summary": "auto"},
        "safety_identifier": "x",
        "service_tier": "auto",
        "store": False,
        "stream_options": {"include_obfuscation": True},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "temperature": None,
        "tools": [],
        "truncation": "disabled",
    }
    assert chat(**neutral).messages == chat().messages


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "no store of responses is configured"),
        ({"conversation": "conv_1"}, "conversation", "no store of responses is configured"),
        ({"prompt": {"id": "x"}}, "prompt", "stored prompts"),
        ({"background": True}, "background", "background"),
        ({"response_format": {"type": "text"}}, "response_format", "`text.format`"),
        ({"prompt_logprobs": 1}, "prompt_logprobs", "/v1/chat/completions"),
        ({"n": 2}, "n", "several answers"),
        ({"preferences": [{"calm": 1}]}, "preferences", "several answers"),
        ({"candidates": {"select": "all"}}, "candidates.select", "several answers"),
        ({"messages": []}, "messages", "not a field"),
        ({"include": ["all"]}, "include[0]", "message.output_text.logprobs"),
        ({"input": []}, "input", "at least 1"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input", "no message"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "item_reference"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content", "only text"),
        ({"input": [{"role": "critic", "content": "x"}]}, "input[0].role", "critic"),
        ({"input": [{"role": "user", "content": "\ud800"}]}, "input[0].content", "surrogate"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "only functions"),
        ({"tool_choice": 3}, "tool_choice", ""),
        ({"tool_choice": "always"}, "tool_choice", ""),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "json_schema"),
        ({"text": {"mood": 1}}, "text.mood", "not a field"),
        ({"text": {"verbosity": 3}}, "text.verbosity", "string"),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater than 0"),
        ({"metadata": {"a": 1}}, "metadata.a", "string"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_the_name_that_was_sent(body: Any, param: str, says: str) -> None:
    found = refused(**body)
    assert found.param == param, found.message
    assert says in found.message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("messages[3].content", "input"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("max_tokens", "max_output_tokens"),
        ("tool_choice.function.name", "tool_choice.name"),
        ("tool_choice.allowed_tools.tools", "tool_choice.tools"),
        ("model", "model"),
        ("messagest", "messagest"),
        (None, None),
    ],
)
def test_a_chats_field_has_its_name_in_a_response(old: str | None, new: str | None) -> None:
    found = name_field(Unprocessable(f"{old}: send less", param=old, code="some_code"))
    assert (found.param, found.message, found.code) == (new, f"{new}: send less", "some_code")


def test_allowed_tools_may_be_flat_or_nested() -> None:
    flat = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get"}]}
    tools = [{"type": "function", "function": {"name": "get"}}]
    nested = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": tools}}
    assert chat(tools=[TOOL], tool_choice=flat).tool_choice == nested
    assert chat(tools=[TOOL], tool_choice=nested).tool_choice == nested
