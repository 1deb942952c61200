"""Turn what a chat answers, whole or in chunks, into output items and events of OpenAI's Responses API. Pure."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

Json = dict[str, Any]
Kind = Literal["reasoning", "message"]
PART: Mapping[Kind, str] = {"reasoning": "reasoning_text", "message": "output_text"}
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseEvents:
    """The items of one response, and the events that tell of them while they grow.

    Attributes:
        output: the items that are finished.
        thoughts: the text of the reasoning.
        reason: why the answer is incomplete; None if it is complete.
        told: Tureen's own fields of the chat's choice.
    """

    def __init__(self) -> None:
        self.output: list[Json] = []
        self.thoughts = ""
        self.reason: str | None = None
        self.told: Json = {}
        self._open: tuple[Kind, Json] | None = None
        self._texts: list[str] = []
        self._logprobs: list[Json] = []
        self._number = 0

    def number(self, kind: str, **fields: Any) -> Json:
        """Make the next event."""
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}

    def push(self, choice: Mapping[str, Any]) -> Iterator[Json]:
        """Read a choice of a chunk, or of a whole reply, whose ``message`` is then all there is."""
        delta = choice.get("delta") or choice.get("message") or {}
        shape = ("index", "delta", "message", "logprobs", "finish_reason")
        self.told |= {name: value for name, value in choice.items() if name not in shape}
        logprobs = (choice.get("logprobs") or {}).get("content") or []
        if delta.get("reasoning_content"):
            self.thoughts += delta["reasoning_content"]
            yield from self._add("reasoning", delta["reasoning_content"], [])
        if delta.get("content") or (logprobs and not delta.get("reasoning_content")):
            yield from self._add("message", delta.get("content") or "", logprobs)
        for call in delta.get("tool_calls") or ():
            yield from self._close()
            yield from self._call(call)
        finish = choice.get("finish_reason")
        if finish is not None:
            self.reason = INCOMPLETE.get(finish)
            if self._open is None and not self.output:
                yield from self._begin("message")
            yield from self._close("incomplete" if self.reason else "completed")

    def _add(self, kind: Kind, text: str, logprobs: Sequence[Json]) -> Iterator[Json]:
        if self._open is None or self._open[0] != kind:
            yield from self._close()
            yield from self._begin(kind)
        self._texts.append(text)
        self._logprobs += logprobs
        more = {"logprobs": list(logprobs)} if kind == "message" else {}
        yield self._tell(f"response.{PART[kind]}.delta", delta=text, **more)

    def _begin(self, kind: Kind) -> Iterator[Json]:
        item: Json = {"id": f"{'rs' if kind == 'reasoning' else 'msg'}_{uuid.uuid4().hex}", "type": kind}
        more: Json = {"summary": []} if kind == "reasoning" else {"role": "assistant"}
        item |= more
        self._open, self._texts, self._logprobs = (kind, item), [], []
        yield self._tell_item("added", {**item, "status": "in_progress", "content": []})
        yield self._tell("response.content_part.added", part=self._part(kind))

    def _close(self, status: str = "completed") -> Iterator[Json]:
        if self._open is None:
            return
        kind, item = self._open
        part = self._part(kind)
        more = {"logprobs": self._logprobs} if kind == "message" else {}
        yield self._tell(f"response.{PART[kind]}.done", text=part["text"], **more)
        yield self._tell("response.content_part.done", part=part)
        yield from self._finish({**item, "status": status, "content": [part]})
        self._open = None

    def _part(self, kind: Kind) -> Json:
        text = "".join(self._texts)
        more = {"annotations": [], "logprobs": self._logprobs} if kind == "message" else {}
        return {"type": PART[kind], "text": text, **more}

    def _call(self, call: Mapping[str, Any]) -> Iterator[Json]:
        function = call["function"]
        name, arguments = function["name"], function["arguments"]
        item = {"id": f"fc_{uuid.uuid4().hex}", "type": "function_call", "call_id": call["id"], "name": name}
        place = {"item_id": item["id"], "output_index": len(self.output)}
        yield self._tell_item("added", {**item, "arguments": "", "status": "in_progress"})
        yield self.number("response.function_call_arguments.delta", **place, delta=arguments)
        yield self.number("response.function_call_arguments.done", **place, name=name, arguments=arguments)
        yield from self._finish({**item, "arguments": arguments, "status": "completed"})

    def _finish(self, item: Json) -> Iterator[Json]:
        yield self._tell_item("done", item)
        self.output.append(item)

    def _tell_item(self, what: str, item: Json) -> Json:
        return self.number(f"response.output_item.{what}", output_index=len(self.output), item=item)

    def _tell(self, kind: str, **fields: Any) -> Json:
        assert self._open is not None
        place = {"item_id": self._open[1]["id"], "output_index": len(self.output), "content_index": 0}
        return self.number(kind, **place, **fields)
