"""Messages as the ecosystem writes them have one canonical form, and what cannot be read is refused by its field."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen.message_fields import BadMessage
from tureen.messages import THOUGHTS, read_message, read_messages
from tureen.tool_calls import parse_arguments, read_tools

CALL = {"id": "c1", "type": "function", "function": {"name": "temperature", "arguments": '{"city": "Oslo"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "temperature", "parameters": {"type": "object"}}}
NEUTRAL: st.SearchStrategy[Any] = st.sampled_from([None, "", [], {}, False, {"refusal": None}])


def says(value: Any, field: str, problem: str) -> None:
    with pytest.raises(BadMessage, match=problem) as caught:
        read_message(value)
    assert caught.value.field == field


# --------------------------------------------------------------------------- one form


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.dictionaries(st.sampled_from(["refusal", "audio", "function_call", "name", "weight"]), NEUTRAL),
)
def test_fields_that_say_nothing_are_left_out(text: str, empty: dict[str, Any]) -> None:
    empty_calls: tuple[Any, ...] = (None, [])
    for calls in empty_calls:
        given = {"role": "assistant", "content": text, "tool_calls": calls, **empty}
        assert read_message(given) == {"role": "assistant", "content": text}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_text_parts_are_joined_as_they_stand(texts: list[str]) -> None:
    parts = [{"type": "text", "text": text, "image": None} for text in texts]
    expected = {"role": "user", "content": "".join(texts)}
    assert read_message({"role": "user", "content": parts}) == expected
    assert read_message({"role": "user", "content": np.array(parts, dtype=object)}) == expected


@pytest.mark.parametrize("name", THOUGHTS)
def test_thoughts_have_one_name(name: str) -> None:
    found = read_message({"role": "assistant", "content": "4", name: "2 + 2"})
    assert found == {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}


def test_two_names_of_the_same_thoughts_are_one() -> None:
    twice = {"role": "assistant", "content": "4", "reasoning": "2 + 2", "reasoning_content": "2 + 2"}
    assert read_message(twice)["reasoning_content"] == "2 + 2"
    says({**twice, "reasoning": "3 + 1"}, "reasoning", "differs from `reasoning_content`")


@pytest.mark.parametrize(
    "arguments", ['{"city": "Oslo"}', '{"city":"Oslo"}', {"city": "Oslo"}, ' {\n "city" : "Oslo" } ']
)
@pytest.mark.parametrize("content", [None, "", [], [{"type": "text", "text": ""}]])
def test_a_call_has_one_form(arguments: Any, content: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "temperature", "arguments": arguments}, "index": 0}
    assert read_message({"role": "assistant", "content": content, "tool_calls": [call]}) == CALLING
    bare = {"id": "c1", "name": "temperature", "arguments": arguments}
    assert read_message({"role": "assistant", "tool_calls": [bare]}) == CALLING


@pytest.mark.parametrize("name", ["arguments", "parameters", "args", "input"])
@pytest.mark.parametrize("given", [{"city": "Oslo"}, '{"city": "Oslo"}', json.dumps('{"city": "Oslo"}')])
@pytest.mark.parametrize("nested", [True, False])
def test_arguments_have_one_name_and_are_encoded_once(name: str, given: Any, nested: bool) -> None:
    called = {"name": "temperature", name: given}
    call = {"id": "c1", "function": called} if nested else {"id": "c1", **called}
    for calls in ([call], json.dumps([call])):
        assert read_message({"role": "assistant", "content": None, "tool_calls": calls}) == CALLING


def test_two_names_of_the_same_arguments_are_one_and_differing_ones_are_refused() -> None:
    twice = {"id": "c1", "name": "temperature", "arguments": {"city": "Oslo"}, "parameters": {"city": "Oslo"}}
    assert read_message({**CALLING, "tool_calls": [twice]}) == CALLING
    other = {**twice, "parameters": {"city": "Bergen"}}
    says({**CALLING, "tool_calls": [other]}, "tool_calls[0].parameters", "differs from `arguments`")
    says({**CALLING, "tool_calls": "f()"}, "tool_calls", "list of calls, or such a list as JSON text")
    nothings: tuple[Any, ...] = (None, "", " ", {})
    for nothing in nothings:
        empty = read_message({**CALLING, "tool_calls": [{"name": "f", "arguments": nothing}]})
        assert empty["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_parts_of_responses_and_hints_to_a_cache_are_text() -> None:
    parts = [
        {"type": kind, "text": "a", "cache_control": {"type": "ephemeral"}} for kind in ("input_text", "output_text")
    ]
    given = {"role": "user", "content": parts, "cache_control": {"type": "ephemeral"}}
    assert read_message(given) == {"role": "user", "content": "aa"}


def test_the_answer_of_a_tool_keeps_what_it_answers() -> None:
    answer = {"role": "tool", "tool_call_id": "c1", "name": "temperature", "content": "-3"}
    assert read_message(answer) == answer


@pytest.mark.parametrize("text", ["not JSON", '["a list"]', '{"x": NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_stay_as_the_model_wrote_them(text: str) -> None:
    assert parse_arguments(text) is None
    call = {"function": {"name": "f", "arguments": text}}
    found = read_message({"role": "assistant", "content": None, "tool_calls": [call]})
    assert found["tool_calls"][0]["function"]["arguments"] == text


def test_a_developer_is_the_system_and_a_refusal_is_what_was_said() -> None:
    assert read_message({"role": "developer", "content": "Be brief."}) == {"role": "system", "content": "Be brief."}
    refused = {"role": "assistant", "content": None, "refusal": "I cannot."}
    assert read_message(refused) == {"role": "assistant", "content": "I cannot."}


@given(st.sampled_from([CALLING, {"role": "user", "content": " x\n"}, {"role": "system", "content": ""}]))
def test_a_canonical_message_stays_as_it_is(message: dict[str, Any]) -> None:
    assert read_message(message) == message
    assert read_message(json.loads(json.dumps(message))) == message


def test_arrays_of_messages_are_lists() -> None:
    turns = [{"role": "user", "content": "hi"}, CALLING]
    assert read_messages(np.array(turns, dtype=object)) == turns
    assert read_messages(tuple(turns)) == turns


def test_other_protocols_may_have_other_fields() -> None:
    assert read_message({"role": "user", "content": "hi", "weight": 1}, strict=False) == {
        "role": "user",
        "content": "hi",
    }


# --------------------------------------------------------------------------- refused by name


@pytest.mark.parametrize(
    ("message", "field", "problem"),
    [
        ("hi", "", "must be an object"),
        ({"content": "hi"}, "role", "is required"),
        (
            {"role": "judge", "content": "hi"},
            "role",
            "unknown role 'judge': should be 'system', 'user', 'assistant' or 'tool'",
        ),
        ({"role": "user"}, "content", "is required"),
        ({"role": "user", "content": None}, "content", "is null"),
        ({"role": "user", "content": 3}, "content", "must be a text or a list of text parts, is a number"),
        ({"role": "user", "content": "\ud800"}, "content", "lone surrogate at character 0"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "content[0]", "only text is read"),
        ({"role": "user", "content": ["hi"]}, "content[0]", "only text is read"),
        ({"role": "user", "content": [{"type": "text"}]}, "content[0].text", "must be a text, is null"),
        ({"role": "user", "content": "hi", "weight": 1}, "weight", "is not a field of a message"),
        ({"role": "assistant", "content": "hi", "audio": {"id": "a"}}, "audio", "only text is read"),
        ({"role": "assistant", "content": "", "function_call": {"name": "f"}}, "function_call", "in `tool_calls`"),
        ({"role": "assistant", "content": "x", "refusal": "no"}, "refusal", "stands beside `content`"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "tool_calls", "belong to a message of the role"),
        ({"role": "user", "content": "x", "tool_call_id": "c1"}, "tool_call_id", "belongs to a message of the role"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "tool_calls[0].name", "is required"),
        ({"role": "assistant", "tool_calls": [{"type": "custom"}]}, "tool_calls[0].type", "only calls of functions"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 3}}]},
            "tool_calls[0].function.arguments",
            "must be an object",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": "\\ud800"}'}}]},
            "tool_calls[0].function.arguments",
            "lone surrogate",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_field(message: Any, field: str, problem: str) -> None:
    says(message, field, problem)


def test_an_error_in_a_list_names_the_message() -> None:
    with pytest.raises(BadMessage) as caught:
        read_messages([{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}])
    assert caught.value.field == "[1].content"
    with pytest.raises(BadMessage, match="must be a list of messages, is a text"):
        read_messages("hi")


# --------------------------------------------------------------------------- tools


@pytest.mark.parametrize(
    "value",
    [
        [TOOL],
        json.dumps([TOOL]),
        [TOOL["function"]],
        [{**TOOL, "custom": None}],
        np.array([TOOL], dtype=object),
        [{"type": "function", "function": {"name": "temperature", "parameters": {"type": "object", "items": None}}}],
    ],
)
def test_tools_have_one_form(value: Any) -> None:
    assert read_tools(value) == [TOOL]


def test_no_tools_are_an_empty_list() -> None:
    assert read_tools(None) == read_tools([]) == []


@pytest.mark.parametrize(
    ("value", "field", "problem"),
    [
        ("temperature", "", "must be a list of functions"),
        (3, "", "must be a list of functions, is a number"),
        ([3], "[0]", "must be an object"),
        ([{"type": "function", "function": {"description": "x"}}], "[0].function.name", "is required"),
        ([{"type": "web_search"}], "[0].type", "only functions are read"),
        ([{"name": "f", "parameters": {"x": "\ud800"}}], "[0]", "lone surrogate"),
    ],
)
def test_a_tool_that_is_none_is_refused_by_its_field(value: Any, field: str, problem: str) -> None:
    with pytest.raises(BadMessage, match=problem) as caught:
        read_tools(value)
    assert caught.value.field == field
