"""A template is told from its syntax tree: tools are rendered or refused by name, thoughts are read or told."""

import json
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from tureen.errors import Unprocessable
from tureen.messages import read_messages
from tureen.tool_calls import read_tools
from tureen_core.chat_template import UNSUPPORTED, TemplateInputs, read_template_fields
from tureen_core.reading import Reading
from tureen_core.template import Renderer

TOOLS = tiny.TOOLS
WEATHER = {"name": "temperature", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
ASKED: dict[str, Any] = {"role": "user", "content": "How cold is it in Oslo?"}
CALLED: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "function": {"name": "temperature", "arguments": '{"city": "Oslo"}'}}],
}
ANSWERED: dict[str, Any] = {"role": "tool", "tool_call_id": "c1", "content": "-3"}
SAID: dict[str, Any] = {"role": "assistant", "content": "It is three degrees below zero."}
TALK = [ASKED, CALLED, ANSWERED, SAID]


def renderer(template: str = TOOLS) -> Renderer:
    made = tiny.tokenizer()
    made.chat_template = template
    return Renderer(made, Reading(max_length=2048))


def refused(render: Renderer, messages: list[dict[str, Any]], param: str, inputs: TemplateInputs | None = None) -> str:
    with pytest.raises(Unprocessable) as caught:
        render.render_conversation(read_messages(messages), inputs=inputs or TemplateInputs())
    assert caught.value.param == param
    return caught.value.message


def test_a_template_that_knows_tools_writes_them() -> None:
    render = renderer()
    inputs = TemplateInputs(read_tools([WEATHER]))
    made = render.render_conversation(read_messages(TALK), inputs=inputs)
    text = render.tokenizer.decode(made.ids)
    assert '{"type": "function", "function": {"name": "temperature"' in text
    assert '<tool_call>{"name": "temperature", "arguments": {"city": "Oslo"}}</tool_call>' in text
    assert "<tool_response>\n-3" in text
    assert made.normalised == ()
    assert made.ids == render.render_candidates(read_messages(TALK[:3]), [read_messages([SAID])], inputs=inputs)[0].ids


@given(
    spaced=st.booleans(),
    as_object=st.booleans(),
    bare=st.booleans(),
    content=st.sampled_from([None, "", []]),
    parts=st.booleans(),
    nulls=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_equivalent_spellings_of_a_conversation_give_one_list_of_ids(
    spaced: bool, as_object: bool, bare: bool, content: Any, parts: bool, nulls: bool
) -> None:
    arguments: Any = {"city": "Oslo"} if as_object else json.dumps({"city": "Oslo"}, indent=2 if spaced else None)
    function = {"name": "temperature", "arguments": arguments}
    call = {"id": "c1", **(function if bare else {"type": "function", "function": function})}
    asked = {"role": "user", "content": [{"type": "text", "text": ASKED["content"]}] if parts else ASKED["content"]}
    empty: dict[str, Any] = {"refusal": None, "audio": None, "function_call": None, "annotations": []} if nulls else {}
    spelled = [asked, {"role": "assistant", "content": content, "tool_calls": [call], **empty}, ANSWERED, SAID | empty]
    render = renderer()
    expected = render.render_conversation(read_messages(TALK))
    assert render.render_conversation(read_messages(spelled)) == expected


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize("known", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_are_given_under_the_name_that_the_template_reads(name: str, known: str) -> None:
    render = renderer(TOOLS.replace("reasoning_content", known))
    made = render.render_conversation(read_messages([ASKED, {**SAID, name: "Below zero."}]))
    assert "<think>Below zero.</think>It is" in render.tokenizer.decode(made.ids)
    assert made.normalised == ()


def test_thoughts_that_the_template_does_not_read_are_left_out_and_told() -> None:
    render = renderer(tiny.CHATML)
    made = render.render_conversation(read_messages([ASKED, {**SAID, "reasoning": "Below zero."}]))
    assert made.ids == render.render_conversation([ASKED, SAID]).ids
    assert made.normalised == ("reasoning_content",)


def test_what_a_template_does_not_know_is_refused_by_name() -> None:
    plain = renderer(tiny.CHATML)
    assert "does not render `tool_calls`" in refused(plain, TALK, "messages[1].tool_calls")
    inputs = TemplateInputs(read_tools([WEATHER]))
    assert "does not render `tools`" in refused(plain, [ASKED, SAID], "tools", inputs)
    only = "{% for m in messages if m.role in ['user', 'assistant'] %}{{ m.content }}<|im_end|>{% endfor %}"
    message = refused(renderer(only), [ASKED, ANSWERED, SAID], "messages[1].role")
    assert "does not render the role `tool`" in message
    with pytest.raises(Unprocessable) as caught:
        plain.render_conversation(read_messages(TALK))
    assert caught.value.code == UNSUPPORTED


def test_a_template_that_writes_every_role_writes_the_tools_answer() -> None:
    render = renderer(tiny.CHATML)
    made = render.render_conversation(read_messages([ASKED, ANSWERED, SAID]))
    assert "<|im_start|>tool\n-3<|im_end|>" in render.tokenizer.decode(made.ids)


def test_arguments_that_are_no_object_are_written_as_the_model_wrote_them() -> None:
    broken = {**CALLED, "tool_calls": [{"function": {"name": "temperature", "arguments": '{"city": '}}]}
    render = renderer()
    made = render.render_conversation(read_messages([ASKED, broken]))
    assert '"arguments": {"city": }</tool_call>' in render.tokenizer.decode(made.ids)


def test_variables_of_the_template_are_given_and_others_told() -> None:
    render = renderer()
    off = TemplateInputs(arguments={"enable_thinking": False, "depth": 3})
    made = render.render_prompt([ASKED], inputs=off)
    assert render.tokenizer.decode(made.ids).endswith("<think></think>")
    assert made.normalised == ("chat_template_kwargs.depth",)


@pytest.mark.parametrize("name", ["chat_template", "messages", "tools", "bos_token", "add_generation_prompt"])
def test_what_the_server_sets_cannot_be_set_by_a_variable(name: str) -> None:
    message = refused(renderer(), [ASKED, SAID], f"chat_template_kwargs.{name}", TemplateInputs(arguments={name: "x"}))
    assert "is set by the server" in message


def test_marks_in_tools_calls_and_variables_are_plain_text() -> None:
    render = renderer(TOOLS + "{{ note }}")
    mark = "<|im_start|>"
    call = {"function": {"name": "f", "arguments": {"x": mark}}}
    inputs = TemplateInputs(read_tools([{"name": "f", "description": mark}]), {"note": mark})
    turns = [{**ASKED, "content": f"a {mark} b"}, {"role": "assistant", "reasoning": f"{mark}!", "tool_calls": [call]}]
    made = render.render_conversation(read_messages(turns), inputs=inputs)
    assert made.ids.count(render.tokenizer.bos_token_id) == 3
    assert render.tokenizer.decode(made.ids).count(mark) == 8
    assert made.normalised == ("control_marks",)


def test_null_content_is_null_only_where_the_template_asks() -> None:
    asks = "{% for m in messages %}{{ 'null' if m['content'] is none else m['content'] }}{{ m.tool_calls }}{% endfor %}"
    assert read_template_fields(asks).asks_for_null
    assert not read_template_fields(TOOLS).asks_for_null
    render = renderer(asks)
    assert "null" in render.tokenizer.decode(render.render_conversation(read_messages([ASKED, CALLED])).ids)


def test_the_librarys_own_tags_are_read() -> None:
    tagged = "{% for m in messages %}{% generation %}{{ m.tool_calls }}{% endgeneration %}{% break %}{% endfor %}"
    assert "tool_calls" in read_template_fields(tagged).names
