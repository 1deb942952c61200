"""OpenAI's replies with our additions, read leniently."""

from typing import Any

import pytest

from tureen import ChatChunk, ChatReply, CompletionReply


def test_a_chat_reply_with_all_our_additions() -> None:
    reply = ChatReply.model_validate(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "smol",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hi", "refusal": None},
                    "finish_reason": "stop",
                    "logprobs": {"content": []},
                    "preferences": {"academy": 1.0},
                    "rewards": {"helpful": {"raw": 2.0, "calibrated": 0.5}},
                    "reward": 0.5,
                }
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
            "preferences": [{"academy": 1.0}],
            "steering": {"method": "soup"},
            "experts": {"academy": "v1"},
        }
    )
    [choice] = reply.choices
    assert (reply.text, choice.text, choice.reward) == ("Hi", "Hi", 0.5)
    assert choice.rewards is not None
    assert choice.rewards["helpful"].calibrated == 0.5
    assert choice.message.model_extra == {"refusal": None}
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 2


@pytest.mark.parametrize("choice", [{"message": {}}, {"message": {"content": None}}, {"message": {"content": ""}}])
def test_a_message_may_be_empty(choice: dict[str, Any]) -> None:
    assert ChatReply.model_validate({"choices": [choice]}).text == ""


@pytest.mark.parametrize("kind", [ChatReply, ChatChunk, CompletionReply])
def test_a_reply_may_hold_no_choice_and_unknown_fields(kind: type[ChatReply]) -> None:
    reply = kind.model_validate({"choices": [], "usage": None, "service_tier": "default"})
    assert reply.text == ""
    assert reply.model_extra == {"service_tier": "default"}


def test_a_chunk_carries_a_piece_of_text_or_none() -> None:
    assert ChatChunk.model_validate({"choices": [{"delta": {"content": "Hi"}}]}).text == "Hi"
    assert ChatChunk.model_validate({"choices": [{"delta": {"role": "assistant"}, "finish_reason": None}]}).text == ""


def test_a_completion_carries_its_text() -> None:
    reply = CompletionReply.model_validate({"choices": [{"text": "a"}, {"index": 1, "text": "b"}]})
    assert [reply.text, *(choice.text for choice in reply.choices)] == ["a", "a", "b"]
