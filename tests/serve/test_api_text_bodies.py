"""OpenAI's whole field set: each field is taken, dropped because it asks for nothing, or refused by name."""

from typing import Any, get_type_hints

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from pydantic import ValidationError

from tureen.errors import InvalidRequest, Unprocessable
from tureen_serve.api.text_bodies import CHAT, COMPLETION, ChatBody, CompletionBody

MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> ChatBody:
    return ChatBody.model_validate({"messages": MESSAGES, **fields})


def completion(**fields: Any) -> CompletionBody:
    return CompletionBody.model_validate({"prompt": "hi", **fields})


@pytest.mark.parametrize(
    ("params", "body", "table"),
    [
        (chat_create_params.CompletionCreateParamsStreaming, ChatBody, CHAT),
        (completion_create_params.CompletionCreateParamsStreaming, CompletionBody, COMPLETION),
    ],
)
def test_every_field_of_the_openai_sdk_is_known(params: Any, body: Any, table: Any) -> None:
    fields = set(get_type_hints(params))
    assert len(fields) > 15
    assert fields <= set(body.model_fields) | set(table)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("function_call", {"name": "f"}),
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("moderation", {"model": "m"}),
        ("web_search_options", {}),
    ],
)
def test_what_is_not_done_here_is_refused_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(Unprocessable) as caught:
        chat(**{field: value})
    assert (caught.value.param, caught.value.code) == (field, "unsupported_parameter")
    assert f"`{field}`" in caught.value.message


@pytest.mark.parametrize(("field", "value"), [("suffix", "end")])
def test_and_on_completions(field: str, value: Any) -> None:
    with pytest.raises(Unprocessable) as caught:
        completion(**{field: value})
    assert caught.value.param == field


@pytest.mark.parametrize(
    "fields",
    [
        {"functions": [], "function_call": "none", "tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"modalities": ["text"]},
        {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"},
    ],
)
def test_what_asks_for_nothing_changes_nothing(fields: dict[str, Any]) -> None:
    kept = chat(**fields).model_dump(exclude={"user", "metadata", "safety_identifier", "prompt_cache_key"})
    plain = chat().model_dump(exclude={"user", "metadata", "safety_identifier", "prompt_cache_key"})
    assert kept | {"parallel_tool_calls": None, "tool_choice": None} == plain


def test_the_best_of_as_many_as_are_sent_are_all_of_them() -> None:
    assert completion(best_of=3, n=3) == completion(n=3)
    assert completion(best_of=1) == completion()
    assert completion(best_of=3, n=2).best_of == 3


def test_vllms_older_fields_of_a_grammar_are_its_newer_one() -> None:
    assert chat(guided_regex="a+", guided_decoding_backend="x").structured_outputs == {"regex": "a+"}
    asked = completion(guided_json={"type": "object"}, guided_whitespace_pattern=" ")
    assert asked.structured_outputs == {"json": {"type": "object"}, "whitespace_pattern": " "}
    with pytest.raises(InvalidRequest) as caught:
        chat(guided_choice=["a"], structured_outputs={"choice": ["a"]})
    assert caught.value.param == "guided_choice"


def test_a_null_is_a_field_left_out() -> None:
    everything = dict.fromkeys({*get_type_hints(chat_create_params.CompletionCreateParamsStreaming)} - {"messages"})
    assert chat(**everything) == chat()
    assert completion(best_of=None, temperature=None, n=None, stop=None, suffix=None) == completion()
    assert chat(preferences=None, preset=None, soup=None, candidates=None) == chat()


def test_a_developer_speaks_for_the_system() -> None:
    body = ChatBody.model_validate({"messages": [{"role": "developer", "content": "be calm"}, *MESSAGES]})
    assert [message.role for message in body.messages] == ["system", "user"]


def test_a_reply_can_be_sent_back_as_the_sdk_writes_it() -> None:
    reply: dict[str, Any] = {
        "role": "assistant",
        "content": "hello",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    tool = {"role": "tool", "content": "4", "tool_call_id": "call_1"}
    body = ChatBody.model_validate({"messages": [*MESSAGES, reply, tool, {**reply, "tool_calls": [], "refusal": ""}]})
    assert [message.content for message in body.messages] == ["hi", "hello", "4", "hello"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tool_calls[0].name", [{"id": "1"}]),
        ("function_call", {"name": "f"}),
        ("audio", {"id": "a"}),
        ("refusal", "I will not"),
    ],
)
def test_messages_that_are_no_text_are_refused_by_their_place(field: str, value: Any) -> None:
    with pytest.raises(Unprocessable) as caught:
        ChatBody.model_validate(
            {"messages": [*MESSAGES, {"role": "assistant", "content": "x", field.partition("[")[0]: value}]}
        )
    assert caught.value.param == f"messages[1].{field}"


def test_unknown_fields_are_still_refused() -> None:
    with pytest.raises(ValidationError, match="preference"):
        chat(preference={"calm": 1})
    with pytest.raises(ValidationError, match="extra_forbidden|Extra inputs"):
        ChatBody.model_validate({"messages": [{"role": "user", "content": "hi", "mood": "calm"}]})


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2, 3], [[1, 2, 3]]), ([[1, 2], [3]], [[1, 2], [3]])],
)
def test_a_prompt_is_a_text_or_ids_or_a_list_of_either(prompt: Any, prompts: Any) -> None:
    assert completion(prompt=prompt).prompts() == prompts


@pytest.mark.parametrize("prompt", [[], [[]], [1, "a"], ["a", 1], [[1], "a"], [-1], [1.5], [True], [[1, None]], {}, 5])
def test_a_prompt_of_another_kind_is_refused(prompt: Any) -> None:
    with pytest.raises(ValidationError, match="prompt"):
        completion(prompt=prompt)


@pytest.mark.parametrize("body", ["text", 5, None, [], {"messages": "hi"}, {"messages": ["hi"]}])
def test_what_is_no_body_at_all_is_left_to_validation(body: Any) -> None:
    for kind in (ChatBody, CompletionBody):
        with pytest.raises(ValidationError):
            kind.model_validate(body)
