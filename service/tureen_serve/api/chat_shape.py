"""The shape of ``chat.completion`` and its chunks, with thoughts and calls of tools. Pure."""

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tureen_serve.api.finite_logprobs import write_logprob
from tureen_serve.generation.message_reader import CallPart, MessageReader, Part, TextPart, read_message_parts
from tureen_serve.runtimes.contract import Finish, TextDelta, TokenLogprob

Json = dict[str, Any]


class ChatReplyShape:
    """The shape of ``chat.completion`` and its chunks.

    Args:
        make_reader: makes a reader of a message's parts; None if all of each text is content.
        named: whether the request names the tool to call: OpenAI then says that the text has ended by ``stop``.
    """

    prefix = "chatcmpl-"
    whole = "chat.completion"
    piece = "chat.completion.chunk"

    def __init__(self, make_reader: Callable[[], MessageReader] | None = None, named: bool = False) -> None:
        self._make_reader = make_reader
        self._named = named
        self._readers: dict[int, MessageReader] = {}
        self._calls: Counter[int] = Counter()

    def choice(self, text: str, logprobs: Sequence[TokenLogprob] | None, finish: Finish) -> Json:
        """Build a message."""
        message: Json = {"role": "assistant", "content": text, "refusal": None}
        if self._make_reader is not None:
            thoughts, content, calls = read_message_parts(text, self._make_reader())
            message["content"] = content or (None if calls else "")
            if thoughts:
                message["reasoning_content"] = thoughts
            if calls:
                message["tool_calls"] = [_call(each) for each in calls]
                finish = self._name_finish(finish)
        return {"message": message, "logprobs": self._logprobs(logprobs), "finish_reason": finish}

    def opening(self) -> Json | None:
        """Build the delta with the role."""
        return {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}

    def deltas(self, index: int, delta: TextDelta, offset: int) -> list[Json]:  # noqa: ARG002
        """Build the deltas with the next parts of the message. A call of a tool is one delta."""
        parts = [{"content": delta.text}] if delta.text else []
        finish: str | None = delta.finish
        if self._make_reader is not None:
            reader = self._readers.setdefault(index, self._make_reader())
            read = [*reader.push(delta.text), *(reader.close() if delta.finish else [])]
            parts = [self._part(index, each) for each in read]
            finish = self._name_finish(delta.finish) if delta.finish and self._calls[index] else finish
        if delta.logprobs and not parts:
            parts = [{"content": ""}]
        told: list[Json] = [{"delta": each, "logprobs": None, "finish_reason": None} for each in parts]
        if told and delta.logprobs:
            told[0]["logprobs"] = self._logprobs(delta.logprobs)
        if finish:
            told.append({"delta": {}, "logprobs": None, "finish_reason": finish})
        return told

    def _part(self, index: int, part: Part) -> Json:
        if isinstance(part, TextPart):
            return {"reasoning_content" if part.kind == "thoughts" else "content": part.text}
        self._calls[index] += 1
        return {"tool_calls": [{"index": self._calls[index] - 1, **_call(part)}]}

    def _name_finish(self, finish: Finish) -> Any:
        return "tool_calls" if finish == "stop" and not self._named else finish

    def _logprobs(self, logprobs: Sequence[TokenLogprob] | None) -> Json | None:
        if logprobs is None:
            return None
        content = [
            {
                **_token(each.token, each.logprob),
                "top_logprobs": [_token(token, value) for token, _, value in each.top],
            }
            for each in logprobs
        ]
        return {"content": content, "refusal": None}


def _call(part: CallPart) -> Json:
    function = {"name": part.name, "arguments": part.arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _token(token: str, logprob: float) -> Json:
    return {"token": token, "logprob": write_logprob(logprob), "bytes": list(token.encode())}
