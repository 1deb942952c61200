"""``POST /v1/chat/completions`` and ``/v1/completions``: OpenAI's routes, by policies souped to each request."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tureen.openai_wire import ChatReply, CompletionReply
from tureen.wire import ChatRequest, CompletionRequest
from tureen_core.turns import Messages
from tureen_serve.api.server_state import EngineDep, MetricsDep
from tureen_serve.api.sse import prepend_event, stream_events
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.api.text_bodies import ChatBody, CompletionBody
from tureen_serve.api.text_replies import ChatReplyShape, CompletionReplyShape, Json, ReplyShape, TextReply, build_usage
from tureen_serve.faults import document_errors
from tureen_serve.generation.plan import Plan, plan_generation
from tureen_serve.generation.select import stream_texts, write_choices
from tureen_serve.generation.texts import TextTask, plan_texts
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics

router = APIRouter(route_class=StrictRoute, tags=["generation"])
ERRORS = document_errors(400, 404, 413, 415, 422, 503, 504)
Account = Callable[[int, bool], Json]
SSE_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@router.post("/v1/chat/completions", response_model=ChatReply, responses=ERRORS)
async def chat(body: ChatBody, engine: EngineDep, metrics: MetricsDep) -> Response:
    """Answer a conversation; OpenAI's fields, and `preferences`, `preset`, `soup`, `candidates`."""
    return await (await plan_chat(engine, metrics, body)).answer()


@router.post("/v1/completions", response_model=CompletionReply, responses=ERRORS)
async def complete(body: CompletionBody, engine: EngineDep, metrics: MetricsDep) -> Response:
    """Continue a text or several. Candidates are scored as answers to a user who said the prompt."""
    return await (await plan_completion(engine, metrics, body)).answer()


@dataclass(frozen=True)
class PlannedText:
    """One request for text, planned and tokenised."""

    engine: Engine
    metrics: Metrics
    body: ChatRequest | CompletionRequest
    planned: Plan
    shape: ReplyShape
    prompts: Sequence[Messages]
    ids: Sequence[Sequence[int]]

    async def answer(self) -> Response:
        """The reply, whole or streamed; a stream begins with its first token, so that an early error has its status."""
        if not self.body.stream:
            return JSONResponse(await self.whole())
        wanted, reply, account = self._begun()
        with_usage = self.body.stream_options is not None and self.body.stream_options.include_usage
        lines = stream_events(reply, wanted, stream_texts(self.engine, self.planned, wanted), account, with_usage)
        begun = prepend_event(await anext(lines), lines)
        return StreamingResponse(begun, media_type="text/event-stream", headers=SSE_HEADERS)

    async def whole(self) -> Json:
        """The whole reply."""
        wanted, reply, account = self._begun()
        choices, spent = await write_choices(self.engine, self.planned, wanted, self.prompts, self.body.priority)
        return reply.whole(choices, self.engine.rewards, account(spent, True))

    def _begun(self) -> tuple[list[TextTask], TextReply, Account]:
        wanted = plan_texts(self.body, self.planned, self.ids)
        reply = TextReply(self.shape, self.planned, wanted[0].sampling.logprobs is not None)
        read = sum({text.prompt: len(text.ids) for text in wanted}.values())
        return wanted, reply, self._account(wanted, read)

    def _account(self, wanted: Sequence[TextTask], read: int) -> Account:
        """A function that notes the tokens made, and whether all texts ended, and gives OpenAI's account of them."""

        def account(spent: int, ended: bool) -> Json:
            family = self.planned.family.name
            self.metrics.texts.labels(family, "written" if ended else "broken_off").inc(len(wanted))
            self.metrics.tokens.labels(family, "in").inc(read)
            self.metrics.tokens.labels(family, "out").inc(spent)
            return build_usage(read, spent)

        return account


async def plan_chat(engine: Engine, metrics: Metrics, body: ChatRequest) -> PlannedText:
    """What a conversation asks for.

    Raises:
        TureenError: it cannot be had.
    """
    planned = plan_generation(body, engine.families, engine.scoring)
    messages = [message.plain() for message in body.messages]
    ids = await asyncio.to_thread(planned.family.renderer.tokenize_prompt, messages)
    return PlannedText(engine, metrics, body, planned, ChatReplyShape(), [messages], [ids])


async def plan_completion(engine: Engine, metrics: Metrics, body: CompletionRequest) -> PlannedText:
    """What a text or several to be continued ask for.

    Raises:
        TureenError: it cannot be had.
    """
    planned = plan_generation(body, engine.families, engine.scoring)
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    ids = await asyncio.to_thread(_encode, planned.family.renderer.tokenize_plain_prompt, prompts)
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return PlannedText(engine, metrics, body, planned, CompletionReplyShape(), messages, ids)


def _encode(renderer: Callable[[str], list[int]], prompts: Sequence[str]) -> list[list[int]]:
    return [renderer(prompt) for prompt in prompts]
