"""Texts of models as the parts of a message, whole and cut at every place."""

import json
from typing import Any

import pytest

from tureen_serve.generation.message_reader import MessageReader, TextPart, Thoughts, find_thoughts, read_message_parts
from tureen_serve.generation.tool_use import HERMES, LLAMA, CallFormat, ToolUse

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("get", "put")]
CALL = '<tool_call>\n{"name": "get", "arguments": {"city": "Oslo é"}}\n</tool_call>'
GET = ("get", {"city": "Oslo é"})


def use(form: CallFormat = HERMES, parallel: bool = True) -> ToolUse:
    return ToolUse(TOOLS, "auto", parallel, form)


def read(text: str, *, tools: ToolUse | None = None, thoughts: Thoughts = "none") -> Any:
    found, content, calls = read_message_parts(text, MessageReader(tools, thoughts))
    return found, content, [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("plain <b> text ", "plain <b> text ", []),
        (CALL, "", [GET]),
        ("I look. \n" + CALL, "I look.", [GET]),
        (CALL + "\n" + CALL, "", [GET, GET]),
        (CALL.removesuffix("</tool_call>"), "", [GET]),
        (CALL[:-30], CALL[:-30], []),
        (CALL.replace("get", "steal"), CALL.replace("get", "steal"), []),
        (CALL.replace('{"city": "Oslo é"}', "1e999"), CALL.replace('{"city": "Oslo é"}', "1e999"), []),
        (CALL + " done", "done", [GET]),
        ("a < b and <tool", "a < b and <tool", []),
    ],
)
def test_hermes_calls(text: str, content: str, calls: list[Any]) -> None:
    said = read(text, tools=use())
    assert (said[0], said[1].strip() if calls else said[1], said[2]) == ("", content, calls)


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (' {"name": "get", "parameters": {"city": "Oslo é"}}', "", [GET]),
        ('{"name": "get", "parameters"', '{"name": "get", "parameters"', []),
        ('It is {"name": "get"}', 'It is {"name": "get"}', []),
    ],
)
def test_llama_calls(text: str, content: str, calls: list[Any]) -> None:
    assert read(text, tools=use(LLAMA)) == ("", content, calls)


def test_only_the_first_call_counts_without_parallel_calls() -> None:
    assert read(CALL + "\n" + CALL, tools=use(parallel=False))[2] == [GET]


@pytest.mark.parametrize(
    ("text", "state", "thoughts", "content"),
    [
        ("<think>\nwell\n</think>\n\nYes", "possible", "well", "Yes"),
        ("well\n</think>\n\nYes", "begun", "well", "Yes"),
        ("<think>cut off", "possible", "cut off", ""),
        (" Yes </think>", "possible", "", " Yes </think>"),
        ("<thin", "possible", "", "<thin"),
        ("<think>a</think>", "none", "", "<think>a</think>"),
    ],
)
def test_thoughts(text: str, state: Thoughts, thoughts: str, content: str) -> None:
    assert read(text, thoughts=state) == (thoughts, content, [])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_of_any_size_are_the_same_message(size: int) -> None:
    text = "<think>\nI <need> it</think>\nI look.\n" + CALL + "\n" + CALL + "\n"
    whole = MessageReader(use(), "possible")
    told = [*whole.push(text), *whole.close()]
    reader = MessageReader(use(), "possible")
    cut = [part for at in range(0, len(text), size) for part in reader.push(text[at : at + size])] + reader.close()

    def join(parts: Any, kind: str) -> str:
        return "".join(part.text for part in parts if isinstance(part, TextPart) and part.kind == kind)

    for kind in ("thoughts", "content"):
        assert join(cut, kind) == join(told, kind)
    assert [p for p in cut if not isinstance(p, TextPart)] == [p for p in told if not isinstance(p, TextPart)]


def test_whether_a_template_has_thoughts_and_the_prompt_begins_them() -> None:
    assert find_thoughts("{{ messages }}", "assistant\n<think>") == "none"
    assert find_thoughts("{{ '</think>' }}", "assistant\n") == "possible"
    assert find_thoughts("{{ '</think>' }}", "assistant\n<think>\n") == "begun"


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        ("", "possible"),
        ("Well, ", "none"),
        ("<think>\nlet me", "begun"),
        ("<think>\nlet me\n</think>\n\nWell,", "none"),
    ],
)
def test_a_message_that_is_continued_is_read_from_where_it_is(begun: str, found: str) -> None:
    assert find_thoughts("<think>{{ x }}</think>", "assistant\n", begun) == found
