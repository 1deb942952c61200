"""``POST /v1/chat/completions`` and ``/v1/completions``: OpenAI's routes, each request with its own preferences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

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
from tureen_serve.generation.select import stream_texts, write_choices
from tureen_serve.generation.texts import TextTask, plan_texts
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.pieces import GoOn, run_pieces
from tureen_serve.inference.text_limits import check_conversation, check_text_bytes
from tureen_serve.security.callers import charge_tokens
from tureen_serve.telemetry import Metrics

router = APIRouter(route_class=StrictRoute, tags=["generation"])
ERRORS = document_openai_errors(400, 404, 413, 415, 422, 503, 504)
Account = Callable[[int, bool], Json]
P = TypeVar("P")
R = TypeVar("R")
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
        ids: the token ids of each prompt: for each variation, or once for all of them.
        normalised: whether a prompt was not read as it was sent.
    """

    engine: Engine
    metrics: Metrics
    body: ChatRequest | CompletionRequest
    planned: Plan
    shape: ReplyShape
    prompts: Sequence[Messages]
    ids: Sequence[Sequence[Sequence[int]]]
    normalised: bool = False

    async def answer(self) -> Response:
        """Write the reply, whole or as a stream.

        A stream is returned after its first token, so that an error before it gets an HTTP status of its own.
        """
        told = ReadingNotes(normalised=int(self.normalised)).headers
        if not self.body.stream:
            return JsonReply(await self.whole(), headers=told)
        tasks, reply, account = self._begin()
        with_usage = self.body.stream_options is not None and self.body.stream_options.include_usage
        lines = stream_events(reply, tasks, stream_texts(self.engine, self.planned, tasks), account, with_usage)
        begun = prepend_event(await anext(lines), lines)
        return StreamingResponse(begun, media_type="text/event-stream", headers={**SSE_HEADERS, **told})

    async def whole(self) -> Json:
        """Write the whole reply."""
        tasks, reply, account = self._begin()
        tokens: list[int] = []
        ended = False
        try:
            choices = await write_choices(
                self.engine,
                self.planned,
                tasks,
                self.prompts,
                tokens.append,
                partial(count_read_texts, self.metrics),
                self.body.priority,
            )
            ended = True
        finally:
            used = account(sum(tokens), ended)
        return reply.whole(choices, self.engine.rewards, used)

    def _begin(self) -> tuple[list[TextTask], TextReply, Account]:
        tasks = plan_texts(self.body, self.planned, self.ids)
        reply = TextReply(self.shape, self.planned, tasks[0].sampling.logprobs is not None)
        read = sum(len(ids) for _, ids in {(text.prompt, tuple(text.ids)) for text in tasks})
        return tasks, reply, self._make_account(tasks, read)

    def _make_account(self, tasks: Sequence[TextTask], read: int) -> Account:
        """Make a function from the tokens generated, and whether all texts ended, to OpenAI's usage.

        The function counts texts and tokens in the metrics and for the caller's quota. What was refused before its
        first token has cost nothing.
        """

        def account(spent: int, ended: bool) -> Json:
            if not spent:
                return build_usage(read, spent)
            family = self.planned.family.name
            self.metrics.texts.labels(family, "written" if ended else "broken_off").inc(len(tasks))
            self.metrics.tokens.labels(family, "in").inc(read)
            self.metrics.tokens.labels(family, "out").inc(spent)
            charge_tokens(read + spent)
            return build_usage(read, spent)

        return account


async def plan_chat(engine: Engine, metrics: Metrics, body: ChatRequest) -> PlannedText:
    """Plan the texts that answer a conversation.

    Raises:
        TureenError: the request cannot be answered.
    """
    await want_judges(engine, body)
    planned = plan_generation(body, engine.families, engine.scoring)
    messages = [message.plain() for message in body.messages]
    check_conversation(messages, engine.limits, "messages")
    render = planned.family.renderer.render_prompt
    rendered = await run_pieces(lambda go_on: _read_each(render, planned.steer_messages(messages), go_on))
    told = {name for each in rendered for name in each.normalised}
    metrics.count_normalised(told)
    ids = [[each.ids for each in rendered]]
    return PlannedText(engine, metrics, body, planned, ChatReplyShape(), [messages], ids, bool(told))


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
    tokenize = planned.family.renderer.tokenize_plain_prompt

    def read(go_on: GoOn) -> list[list[list[int]]]:
        return [_read_each(tokenize, planned.steer_text(prompt), go_on) for prompt in prompts]

    ids = await run_pieces(read)
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return PlannedText(engine, metrics, body, planned, CompletionReplyShape(), messages, ids)


def _read_each(read: Callable[[P], R], prompts: Sequence[P], go_on: GoOn) -> list[R]:
    found = []
    for prompt in prompts:
        go_on()
        found.append(read(prompt))
    return found
