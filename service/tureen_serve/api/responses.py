"""``POST /v1/responses``: OpenAI's Responses API over the texts of ``/v1/chat/completions``. Nothing is stored."""

import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from tureen.errors import TureenError
from tureen_serve.api.chat import ERRORS, PlannedText, plan_chat
from tureen_serve.api.ignored_fields import DOCUMENTED
from tureen_serve.api.json_replies import write_json
from tureen_serve.api.preference_header import PreferenceHeader, add_header
from tureen_serve.api.reading_headers import NORMALISED, document_scoring
from tureen_serve.api.response_bodies import ResponseBody, name_field
from tureen_serve.api.response_events import ResponseEvents
from tureen_serve.api.server_state import EngineDep, MetricsDep
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.pieces import LARGE_BYTES, run_pieces
from tureen_serve.telemetry import Metrics

Json = dict[str, Any]
OWN = ("system_fingerprint", "steering", "experts")  # Tureen's fields of a chat's reply that a response has too
ANSWERS = document_scoring(ERRORS, NORMALISED)
REPLIES: Json = {
    "description": "A response of OpenAI's Responses API, or its events with `stream`",
    "headers": {**ANSWERS.get(200, {}).get("headers", {}), **DOCUMENTED},
    "content": {
        "application/json": {"schema": {"type": "object"}},
        "text/event-stream": {"schema": {"type": "string"}},
    },
}

router = APIRouter(route_class=StrictRoute, tags=["generation"])


@router.post("/v1/responses", responses={**ANSWERS, 200: REPLIES})
async def respond(
    body: ResponseBody, engine: EngineDep, metrics: MetricsDep, x_tureen_preferences: PreferenceHeader = None
) -> Response:
    """Answer as OpenAI's Responses API does. Takes its fields, and `preferences`, `preset`, `soup` and `candidates`."""
    try:
        return await (await plan_response(engine, metrics, body, x_tureen_preferences)).answer()
    except TureenError as error:
        raise name_field(error) from None


async def plan_response(
    engine: Engine, metrics: Metrics, body: ResponseBody, header: str | None = None
) -> "PlannedResponse":
    """Plan the one text of a response. ``header`` is the value of ``X-Tureen-Preferences``.

    Raises:
        TureenError: as :func:`plan_chat`, with the field of a chat; see :func:`name_field`.
    """
    planned = await plan_chat(engine, metrics, add_header(body.chat, header))
    known = {**vars(planned), "ignored": body.list_ignored(planned.ignored)}
    return PlannedResponse(**known, asked=body)


@dataclass(frozen=True, kw_only=True)
class PlannedResponse(PlannedText):
    """One response, planned and tokenised.

    Attributes:
        asked: the request.
    """

    asked: ResponseBody
    name: str = field(default_factory=lambda: f"resp_{uuid.uuid4().hex}")

    async def whole(self) -> Json:
        """Write the whole response."""
        reply = await super().whole()
        events = ResponseEvents()
        for _ in events.push(reply["choices"][0]):
            pass
        return await self._end(reply, events, reply["usage"])

    async def write(self, chunks: AsyncGenerator[Json]) -> AsyncGenerator[bytes]:
        """Write the chunks of a chat as the events of a response. The first waits for the first chunk."""
        events, head, usage = ResponseEvents(), Json(), Json()
        async with aclosing(chunks):
            async for chunk in chunks:
                if "error" in chunk:
                    for event in self._fail(head, events, chunk["error"]):
                        yield _write(event)
                    return
                if not head:
                    head = {name: value for name, value in chunk.items() if name not in ("choices", "usage")}
                    for kind in ("created", "in_progress"):
                        yield _write(events.number(f"response.{kind}", response=self._frame(head, "in_progress")))
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    for event in events.push(choice):
                        yield _write(event)
        response = await self._end(head, events, usage)
        yield _write(events.number(f"response.{response['status']}", response=response))

    def _fail(self, head: Json, events: ResponseEvents, error: Mapping[str, Any]) -> list[Json]:
        """Tell of an error after the first token: the failed response, and the event from which clients raise."""
        told = {name: error[name] for name in ("code", "message", "param")}
        short = {name: told[name] for name in ("code", "message")}
        response = self._frame(head, "failed", output=events.output, error=short)
        return [events.number("response.failed", response=response), events.number("error", **told, error=dict(error))]

    async def _end(self, head: Json, events: ResponseEvents, usage: Json) -> Json:
        thoughts = await self._count_tokens(events.thoughts)
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        counted = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": min(thoughts, usage["completion_tokens"])},
            "total_tokens": usage["total_tokens"],
        }
        details = {"reason": events.reason} if events.reason else None
        ended = {"output": events.output, "usage": counted, "incomplete_details": details, **events.told}
        if details:
            return self._frame(head, "incomplete", **ended)
        return self._frame(head, "completed", **ended, completed_at=int(time.time()))

    async def _count_tokens(self, text: str) -> int:
        renderer = self.planned.family.renderer
        if renderer is None or not text:
            return 0
        encode = renderer.tokenizer.encode
        return await run_pieces(lambda _: len(encode(text, add_special_tokens=False)), len(text) > LARGE_BYTES)

    def _frame(self, head: Json, status: str, **more: Any) -> Json:
        """Build the response object around its output."""
        asked = self.asked
        shown = {"metadata": asked.metadata or {}, "parallel_tool_calls": asked.parallel_tool_calls is not False}
        for name in ("instructions", "max_output_tokens", "temperature", "top_p", "user"):
            shown[name] = getattr(asked, name)
        for name in ("prompt_cache_key", "safety_identifier"):
            shown[name] = getattr(asked, name)
        effort = asked.reasoning.effort if asked.reasoning else None
        return {
            "id": self.name,
            "object": "response",
            "created_at": head["created"],
            "status": status,
            "background": False,
            "error": None,
            "completed_at": None,
            "incomplete_details": None,
            "max_tool_calls": None,
            "model": head["model"],
            "output": [],
            "previous_response_id": None,
            "reasoning": {"effort": effort, "summary": None},
            "service_tier": "default",
            "store": False,
            "text": {"format": asked.text.format or {"type": "text"}, "verbosity": asked.text.verbosity or "medium"},
            "tool_choice": asked.tool_choice or "auto",
            "tools": [_flatten_tool(each) for each in asked.tools or ()],
            "top_logprobs": asked.top_logprobs or 0,
            "truncation": "auto" if self.body.truncate else "disabled",
            "usage": None,
            **shown,
            **{name: head[name] for name in OWN if name in head},
            **more,
        }


def _flatten_tool(tool: Mapping[str, Any]) -> Json:
    function = tool["function"]
    return {"type": "function", "parameters": None, "strict": None, **function}


def _write(event: Json) -> bytes:
    return f"event: {event['type']}\ndata: ".encode() + write_json(event) + b"\n\n"
