"""Messages with thoughts and calls of tools, whole and as a stream, as the openai SDK reads them."""

from functools import partial
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage
from openai.types.chat.chat_completion_chunk import Choice

from tureen_serve.api.chat_shape import ChatReplyShape
from tureen_serve.generation.message_reader import MessageReader
from tureen_serve.generation.tool_use import HERMES, ToolUse
from tureen_serve.runtimes.contract import TextDelta, TokenLogprob

USE = ToolUse([{"type": "function", "function": {"name": "get"}}], "auto", True, HERMES)
CALL = '<tool_call>\n{"name": "get", "arguments": {"city": "Oslo"}}\n</tool_call>'
TEXT = f"<think>\nwell</think>\nI look.\n{CALL}\n{CALL}"


def shape(named: bool = False) -> ChatReplyShape:
    return ChatReplyShape(partial(MessageReader, USE, "possible"), named)


@pytest.mark.parametrize(("named", "finish", "told"), [(False, "stop", "tool_calls"), (True, "stop", "stop")])
def test_a_whole_message_has_its_thoughts_and_calls(named: bool, finish: Any, told: str) -> None:
    choice = shape(named).choice(TEXT, None, finish)
    message = ChatCompletionMessage.model_validate(choice["message"])
    assert (message.content, choice["message"]["reasoning_content"], choice["finish_reason"]) == (
        "I look.",
        "well",
        told,
    )
    assert message.tool_calls is not None
    assert [call.model_dump()["function"] for call in message.tool_calls] == [
        {"name": "get", "arguments": '{"city": "Oslo"}'}
    ] * 2
    assert len({call.id for call in message.tool_calls}) == 2


def test_a_message_that_only_calls_has_no_content_and_one_that_is_cut_off_says_length() -> None:
    assert shape().choice(CALL, None, "stop")["message"]["content"] is None
    cut = shape().choice(CALL[:-20], None, "length")
    assert (cut["finish_reason"], "tool_calls" in cut["message"]) == ("length", False)
    assert cut["message"]["content"] == CALL[:-20]


def test_a_stream_tells_the_same_in_parts() -> None:
    made = shape()
    logprob = (TokenLogprob("x", 1, -0.5),)
    told: list[Any] = []
    for at in range(0, len(TEXT), 5):
        told += made.deltas(0, TextDelta(TEXT[at : at + 5], 1, logprob), at)
    told += made.deltas(0, TextDelta("", 1, (), "stop"), len(TEXT))
    for each in told:
        Choice.model_validate({"index": 0, **each})
    joined = {
        name: "".join(each["delta"].get(name) or "" for each in told) for name in ("content", "reasoning_content")
    }
    assert joined == {"content": "I look.", "reasoning_content": "\nwell"}
    calls = [call for each in told for call in each["delta"].get("tool_calls", [])]
    assert [(call["index"], call["function"]["name"]) for call in calls] == [(0, "get"), (1, "get")]
    assert [each["finish_reason"] for each in told if each["finish_reason"]] == ["tool_calls"]
    assert sum(len(each["logprobs"]["content"]) for each in told if each["logprobs"]) == len(range(0, len(TEXT), 5))
