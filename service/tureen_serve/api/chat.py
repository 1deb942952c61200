"""``POST /v1/chat/completions`` and ``/v1/completions``: OpenAI's routes, each request with its own preferences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from tureen.openai_wire import ChatReply, CompletionReply
from tureen.wire import ChatRequest, CompletionRequest
from tureen_core.turns import Messages
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.outcome_counts import count_read_texts
from tureen_serve.api.reading_headers import NORMALISED, ReadingNotes, document_scoring
from tureen_serve.api.server_state import EngineDep, MetricsDep
from tureen_serve.api.sse import prepend_event, stream_events
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.api.text_bodies import ChatBody, CompletionBody
from tureen_serve.api.text_replies import ChatReplyShape, CompletionReplyShape, Json, ReplyShape, TextReply, build_usage
from tureen_serve.api.wanted_rewards import want_judges
from tureen_serve.faults import document_openai_errors
from tureen_serve.generation.plan import Plan, plan_generation
from tureen_serve.generation.prompts import read_conversation, read_texts
from tureen_serve.generation.select import Spent, stream_texts, write_choices
from tureen_serve.generation.texts import TextTask, plan_texts
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.pieces import LARGE_BYTES, run_pieces
from tureen_serve.inference.text_limits import check_conversation, check_text_bytes
from tureen_serve.runtimes.upstream_contract import Prompt, SpokenPrompt
from tureen_serve.security.callers import charge_tokens
from tureen_serve.telemetry import Metrics

router = APIRouter(route_class=StrictRoute, tags=["generation"])
ERRORS = document_openai_errors(400, 404, 413, 415, 422, 502, 503, 504)
Account = Callable[[Spent, bool], Json]
SSE_HEADERS = {"x-accel-buffering": "no"}


def _document(answers: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """Describe the replies of a route for OpenAPI: a whole answer, or its events with ``stream``."""
    events = {"text/event-stream": {"schema": {"type": "string"}}}
    whole = {"description": "Successful Response", **answers.get(200, {})}
    return {**answers, 200: {**whole, "content": events}}


@router.post(
    "/v1/chat/completions", response_model=ChatReply, responses=_document(document_scoring(ERRORS, NORMALISED))
)
async def chat(body: ChatBody, engine: EngineDep, metrics: MetricsDep) -> Response:
    """Answer a conversation. Takes OpenAI's fields, and `preferences`, `preset`, `soup` and `candidates`.

    A policy that is steered by reward tags takes `desired_rewards` and `mapping` too.
    """
    return await (await plan_chat(engine, metrics, body)).answer()


@router.post("/v1/completions", response_model=CompletionReply, responses=_document(ERRORS))
async def complete(body: CompletionBody, engine: EngineDep, metrics: MetricsDep) -> Response:
    """Continue one text or several. Candidates are scored as answers to a user's turn that holds the prompt."""
    return await (await plan_completion(engine, metrics, body)).answer()


@dataclass(frozen=True)
class PlannedText:
    """One request for text, planned and tokenised.

    Attributes:
        prompts: each prompt as messages, for the rewards that score candidates.
        read: each prompt as the policy reads it: for each variation, or once for all of them.
        normalised: whether a prompt was not read as it was sent.
    """

    engine: Engine
    metrics: Metrics
    body: ChatRequest | CompletionRequest
    planned: Plan
    shape: ReplyShape
    prompts: Sequence[Messages]
    read: Sequence[Sequence[Prompt]]
    normalised: bool = False

    async def answer(self) -> Response:
        """Write the reply, whole or as a stream.

        A stream is returned after its first token, so that an error before it gets an HTTP status of its own.
        """
        told = ReadingNotes(normalised=int(self.normalised)).headers
        if not self.body.stream:
            return JsonReply(await self.whole(), headers=told)
        tasks, reply, spent = self._begin()
        account = self._make_account(tasks)
        with_usage = self.body.stream_options is not None and self.body.stream_options.include_usage
        lines = stream_events(reply, tasks, stream_texts(self.engine, self.planned, tasks), spent, account, with_usage)
        begun = prepend_event(await anext(lines), lines)
        return StreamingResponse(begun, media_type="text/event-stream", headers={**SSE_HEADERS, **told})

    async def whole(self) -> Json:
        """Write the whole reply."""
        tasks, reply, spent = self._begin()
        ended = False
        try:
            choices = await write_choices(
                self.engine,
                self.planned,
                tasks,
                self.prompts,
                spent,
                partial(count_read_texts, self.metrics),
                self.body.priority,
            )
            ended = True
        finally:
            used = self._make_account(tasks)(spent, ended)
        return reply.whole(choices, self.engine.rewards, used)

    def _begin(self) -> tuple[list[TextTask], TextReply, Spent]:
        tasks = plan_texts(self.body, self.planned, self.read)
        reply = TextReply(self.shape, self.planned, tasks[0].sampling.logprobs is not None)
        read = {(each.number, tuple(each.prompt)) for each in tasks if not isinstance(each.prompt, SpokenPrompt)}
        return tasks, reply, Spent(sum(len(ids) for _, ids in read))

    def _make_account(self, tasks: Sequence[TextTask]) -> Account:
        """Make a function from the tokens spent, and whether all texts ended, to OpenAI's usage.

        The function counts texts and tokens in the metrics and for the caller's quota. What was refused before its
        first token has cost nothing.
        """

        def account(spent: Spent, ended: bool) -> Json:
            usage = build_usage(spent.read, spent.made, spent.cached)
            if spent.made:
                family = self.planned.family.name
                self.metrics.texts.labels(family, "written" if ended else "broken_off").inc(len(tasks))
                self.metrics.tokens.labels(family, "in").inc(spent.read)
                self.metrics.tokens.labels(family, "out").inc(spent.made)
                charge_tokens(spent.read + spent.made)
            return usage

        return account


async def plan_chat(engine: Engine, metrics: Metrics, body: ChatRequest) -> PlannedText:
    """Plan the texts that answer a conversation.

    Raises:
        TureenError: the request cannot be answered.
    """
    await want_judges(engine, body)
    planned = plan_generation(body, engine.families, engine.scoring)
    messages = [message.plain() for message in body.messages]
    large = check_conversation(messages, engine.limits, "messages") > LARGE_BYTES
    read, told = await run_pieces(lambda go_on: read_conversation(planned, messages, go_on), large)
    metrics.count_normalised(told)
    return PlannedText(engine, metrics, body, planned, ChatReplyShape(), [messages], [read], bool(told))


async def plan_completion(engine: Engine, metrics: Metrics, body: CompletionRequest) -> PlannedText:
    """Plan the texts that continue one prompt or several.

    Raises:
        TureenError: the request cannot be answered.
    """
    await want_judges(engine, body)
    planned = plan_generation(body, engine.families, engine.scoring)
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    for index, prompt in enumerate(prompts):
        check_text_bytes(prompt, engine.limits, "prompt" if prompt is body.prompt else f"prompt[{index}]")
    large = sum(map(len, prompts)) > LARGE_BYTES
    read = await run_pieces(lambda go_on: read_texts(planned, prompts, go_on), large)
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return PlannedText(engine, metrics, body, planned, CompletionReplyShape(), messages, read)
