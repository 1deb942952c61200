"""Equivalent spellings of one conversation are one group to the engine, in every route and dialect that takes messages,
and one item in every adapter.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage

from tureen.adapters.grouped_rows import group_by_prompt
from tureen.adapters.verl import PROMPT_KEYS, _prompt
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_serve.api.reward_items import PreferencesBody, ScoreBody, build_group, read_answer, read_prompt
from tureen_serve.api.text_bodies import ChatBody
from tureen_serve.dialects.gym import GymVerifyBody, _answer
from tureen_serve.dialects.gym import _prompt as _gym_prompt
from tureen_serve.dialects.slime import SlimeSample
from tureen_serve.dialects.vllm_bodies import VllmPoolingBody, VllmTextsBody
from tureen_serve.dialects.vllm_tokens import VllmTokenizeBody
from tureen_serve.inference.engine import Group
from tureen_serve.inference.rendering import render_answers

RENDER = Renderer(tiny.tokenizer(), Reading(max_length=2048))
LETTERS = st.text(st.sampled_from("abc é猫.\n"), min_size=1, max_size=12).filter(lambda text: text == text.strip())
EMPTY = ("refusal", "audio", "function_call", "tool_calls", "name", "annotations", "reasoning", "thinking")
MARKS = ("", "<|im_end|>", "<|im_end|>\n", "<|endoftext|> <|endoftext|>", "\n<|im_end|>")
Message = dict[str, Any]


@st.composite
def spelled(draw: st.DrawFn, role: str, text: str) -> Message:
    """One message in one of its spellings."""
    dirty = draw(st.sampled_from(MARKS)).strip() + text + draw(st.sampled_from(MARKS))
    cut = draw(st.integers(0, len(dirty)))
    parts = [{"type": "text", "text": part} for part in (dirty[:cut], dirty[cut:])]
    content: Any = draw(st.sampled_from([dirty, parts, parts[:1] + [{"type": "text", "text": ""}] + parts[1:]]))
    names = draw(st.lists(st.sampled_from(EMPTY), unique=True))
    return {"role": role, "content": content} | {name: draw(st.sampled_from([None, []])) for name in names}


def ids(found: Any) -> list[list[int]]:
    assert isinstance(found, Group)
    rendered = render_answers(RENDER, found, False)
    return [each.ids for each in rendered if not isinstance(each, Exception)]


def by_messages(body: type[Any]) -> Callable[[list[Message], list[Message]], Group]:
    def read(prompt: list[Message], answer: list[Message]) -> Group:
        made = body.model_validate({"items": [{"messages": [*prompt, *answer]}]})
        found = build_group(made.items[0])
        assert isinstance(found, Group)
        return found

    return read


def by_candidates(body: type[Any]) -> Callable[[list[Message], list[Message]], Group]:
    def read(prompt: list[Message], answer: list[Message]) -> Group:
        made = body.model_validate({"items": [{"prompt": prompt, "candidates": [answer]}]})
        found = build_group(made.items[0])
        assert isinstance(found, Group)
        return found

    return read


def by_vllm(body: type[VllmTextsBody]) -> Callable[[list[Message], list[Message]], Any]:
    return lambda prompt, answer: body.model_validate({"messages": [*prompt, *answer]}).groups(2048)[0]


def by_tokenize(prompt: list[Message], answer: list[Message]) -> Group:
    made = VllmTokenizeBody.model_validate({"messages": [*prompt, *answer], "add_generation_prompt": False})
    return Group([[turn.plain() for turn in made.messages or ()]])


def by_chat(prompt: list[Message], answer: list[Message]) -> Group:
    made = ChatBody.model_validate({"messages": [*prompt, *answer]})
    return Group([[turn.plain() for turn in made.messages]])


def by_slime(prompt: list[Message], answer: list[Message]) -> Group:
    text = answer[0]["content"]
    whole = text if isinstance(text, str) else "".join(part["text"] for part in text)
    made = SlimeSample.model_validate({"prompt": prompt, "response": whole})
    return Group([read_answer(made.response)], read_prompt(made.prompt))


def by_gym(prompt: list[Message], answer: list[Message]) -> Group:
    given = {"responses_create_params": {"input": prompt}, "response": {"output": answer}}
    made = GymVerifyBody.model_validate(given)
    return Group([_answer(made.response.output)], _gym_prompt(made.responses_create_params))


def by_adapter(prompt: list[Message], answer: list[Message]) -> Group:
    (item,) = group_by_prompt([_prompt({"prompt": prompt}, PROMPT_KEYS)], [answer]).items
    return by_candidates(ScoreBody)(item["prompt"], item["candidates"][0])


READERS: dict[str, Callable[[list[Message], list[Message]], Any]] = {
    "score messages": by_messages(ScoreBody),
    "score candidates": by_candidates(ScoreBody),
    "preferences": by_candidates(PreferencesBody),
    "classify": by_vllm(VllmTextsBody),
    "pooling": by_vllm(VllmPoolingBody),
    "tokenize": by_tokenize,
    "chat": by_chat,
    "slime": by_slime,
    "gym": by_gym,
    "adapters": by_adapter,
}


def test_our_own_reply_as_sdks_dump_it_can_be_scored() -> None:
    """OpenAI's client writes null fields; LiteLLM adds fields of its own that hold nothing."""
    said = {"role": "assistant", "content": "The Ebro."}
    dumps = [
        ChatCompletionMessage(role="assistant", content="The Ebro.").model_dump(),
        ChatCompletionMessage(role="assistant", content="The Ebro.", annotations=[], reasoning="").model_dump(),
        {**said, "tool_calls": None, "function_call": None, "provider_specific_fields": {"refusal": None}},
    ]
    asked = {"role": "user", "content": "Name a river in Spain."}
    expected = RENDER.render_conversation([asked, said]).ids
    for dump in dumps:
        assert ids(by_messages(ScoreBody)([asked], [dump])) == [expected]


def test_arrays_as_parquet_files_give_them_are_messages_to_the_adapters() -> None:
    turns = np.array([{"role": "user", "content": "hi", "tool_calls": None}], dtype=object)
    (item,) = group_by_prompt([turns, [{"role": "user", "content": "hi"}]], ["a", "b"]).items
    assert item == {"prompt": [{"role": "user", "content": "hi"}], "candidates": ["a", "b"]}


@pytest.mark.parametrize("reader", READERS)
@given(data=st.data(), asked=LETTERS, said=LETTERS)
@settings(max_examples=40, deadline=None)
def test_equivalent_spellings_give_one_list_of_ids(reader: str, data: st.DataObject, asked: str, said: str) -> None:
    prompt = [data.draw(spelled("user", asked))]
    answer = [data.draw(spelled("assistant", said))]
    plain = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    found = ids(READERS[reader](json.loads(json.dumps(prompt)), json.loads(json.dumps(answer))))
    assert found == [RENDER.render_conversation(plain).ids]


# --------------------------------------------------------------------------- calls of tools

CALLED: Message = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Oslo"}'}}
TOOLS = tiny.tokenizer()
TOOLS.chat_template = tiny.TOOLS
RENDER_TOOLS = Renderer(TOOLS, Reading(max_length=2048))
TALKERS = [name for name in READERS if name not in ("slime", "gym")]  # these two take calls in forms of their own


@st.composite
def called(draw: st.DrawFn) -> Any:
    """One call of a tool, in one of its spellings."""
    given_arguments: Any = draw(st.sampled_from([{"city": "Oslo"}, '{"city": "Oslo"}', '{"city":"Oslo"}']))
    if isinstance(given_arguments, str) and draw(st.booleans()):
        given_arguments = json.dumps(given_arguments)
    function = {"name": "f", draw(st.sampled_from(["arguments", "parameters", "args", "input"])): given_arguments}
    call = {"id": "c1", "function": function} if draw(st.booleans()) else {"id": "c1", **function}
    calls: list[Message] = [call | draw(st.sampled_from([{}, {"type": "function"}, {"index": 0}]))]
    return draw(st.sampled_from([calls, json.dumps(calls)]))


@pytest.mark.parametrize("reader", TALKERS)
@given(calls=called(), content=st.sampled_from([None, "", []]), name=st.sampled_from(["thinking", "reasoning"]))
@settings(max_examples=40, deadline=None)
def test_equivalent_spellings_of_calls_and_thoughts_give_one_list_of_ids(
    reader: str, calls: Any, content: Any, name: str
) -> None:
    asked, told = {"role": "user", "content": "how cold?"}, {"role": "tool", "tool_call_id": "c1", "content": "-3"}
    plain: list[Message] = [
        {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        told,
        {"role": "assistant", "content": "cold", "reasoning_content": "below zero"},
    ]
    spelled_turns = [
        {"role": "assistant", "content": content, "tool_calls": calls, "refusal": None},
        {**told, "content": [{"type": "text", "text": "-3"}]},
        {"role": "assistant", "content": "cold", name: "below zero"},
    ]
    group = READERS[reader]([asked], spelled_turns)
    (found,) = render_answers(RENDER_TOOLS, group, False)
    assert not isinstance(found, Exception)
    assert found.ids == RENDER_TOOLS.render_conversation([asked, *plain]).ids
