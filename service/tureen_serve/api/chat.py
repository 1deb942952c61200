"""``POST /v1/chat/completions`` and ``/v1/completions``: OpenAI's routes, each request with its own preferences."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from tureen.openai_wire import ChatReply, CompletionReply
from tureen.wire import ChatRequest, CompletionRequest, StreamOptions
from tureen_core.turns import Messages
from tureen_serve.api.chat_reading import find_opening, make_inputs, refuse_upstream, shape_message
from tureen_serve.api.completion_prompts import check_prompts, make_echo, read_prompts
from tureen_serve.api.completion_replies import CompletionReplyShape
from tureen_serve.api.ignored_fields import DOCUMENTED, IGNORED, list_ignored
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.outcome_counts import count_read_texts
from tureen_serve.api.preference_header import PreferenceHeader, add_header
from tureen_serve.api.reading_headers import NORMALISED, ReadingNotes, document_scoring
from tureen_serve.api.server_state import EngineDep, MetricsDep
from tureen_serve.api.sse import prepend_event, stream_chunks, write_events
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.api.text_bodies import ChatBody, CompletionBody
from tureen_serve.api.text_replies import Json, ReplyShape, TextReply, build_usage
from tureen_serve.api.wanted_rewards import refuse_reward, want_judges
from tureen_serve.faults import document_openai_errors
from tureen_serve.generation.plan import Plan, plan_generation
from tureen_serve.generation.prompts import read_conversation
from tureen_serve.generation.select import Spent, stream_texts, write_choices
from tureen_serve.generation.structure import check_bound_end, read_grammar
from tureen_serve.generation.texts import TextTask, plan_texts
from tureen_serve.generation.tool_use import read_tool_use, write_call_grammar
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.grammar_desk import compile_for_lane
from tureen_serve.inference.pieces import LARGE_BYTES, run_pieces
from tureen_serve.inference.text_limits import check_conversation
from tureen_serve.runtimes.grammar_proof import GrammarSource
from tureen_serve.runtimes.grammars import Grammar
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
    headers = {**whole.get("headers", {}), **DOCUMENTED}
    return {**answers, 200: {**whole, "headers": headers, "content": events}}


@router.post(
    "/v1/chat/completions", response_model=ChatReply, responses=_document(document_scoring(ERRORS, NORMALISED))
)
async def chat(
    body: ChatBody, engine: EngineDep, metrics: MetricsDep, x_tureen_preferences: PreferenceHeader = None
) -> Response:
    """Answer a conversation. Takes OpenAI's fields, and `preferences`, `preset`, `soup` and `candidates`.

    A policy that is steered by reward tags takes `desired_rewards` and `mapping` too.
    """
    return await (await plan_chat(engine, metrics, add_header(body, x_tureen_preferences))).answer()


@router.post("/v1/completions", response_model=CompletionReply, responses=_document(ERRORS))
async def complete(
    body: CompletionBody, engine: EngineDep, metrics: MetricsDep, x_tureen_preferences: PreferenceHeader = None
) -> Response:
    """Continue one text or several. Candidates are scored as answers to a user's turn that holds the prompt."""
    return await (await plan_completion(engine, metrics, add_header(body, x_tureen_preferences))).answer()


@dataclass(frozen=True)
class PlannedText:
    """One request for text, planned and tokenised.

    Attributes:
        prompts: each prompt as messages, for the rewards that score candidates.
        read: each prompt as the policy reads it: for each variation, or once for all of them.
        normalised: whether a prompt was not read as it was sent.
        echoes: each prompt as the reply repeats it; None if it does not.
        grammar: what each text must satisfy.
        ignored: the fields without an effect on the answer.
        begun: the beginning of the answer, if the prompt has it.
    """

    engine: Engine
    metrics: Metrics
    body: ChatRequest | CompletionRequest
    planned: Plan
    shape: ReplyShape
    prompts: Sequence[Messages]
    read: Sequence[Sequence[Prompt]]
    normalised: bool = False
    echoes: Sequence[str] | None = None
    grammar: Grammar | None = None
    ignored: Sequence[str] = ()
    begun: str = ""

    async def answer(self) -> Response:
        """Write the reply, whole or as a stream.

        A stream is returned after its first token, so that an error before it gets an HTTP status of its own.
        """
        told = ReadingNotes(normalised=int(self.normalised)).headers
        told |= {IGNORED: ", ".join(self.ignored)} if self.ignored else {}
        if not self.body.stream:
            return JsonReply(await self.whole(), headers=told)
        lines = self.write(self._chunks())
        begun = prepend_event(await anext(lines), lines)
        return StreamingResponse(begun, media_type="text/event-stream", headers={**SSE_HEADERS, **told})

    def _chunks(self) -> AsyncGenerator[Json]:
        tasks, reply, spent = self._begin()
        account = self._make_account(tasks)
        deltas = stream_texts(self.engine, self.planned, tasks)
        return stream_chunks(reply, tasks, deltas, spent, account, self.body.stream_options or StreamOptions())

    def write(self, chunks: AsyncGenerator[Json]) -> AsyncGenerator[bytes]:
        """Write the chunks of a stream as events."""
        return write_events(chunks)

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
        planned = plan_texts(self.body, self.planned, self.read, self.grammar, self.begun)
        tasks = [self._add_echo(each) for each in planned]
        with_logprobs = self.body.logprobs is not None and self.body.logprobs is not False
        reply = TextReply(self.shape, self.planned, with_logprobs, self.body.prompt_logprobs)
        read = {(each.number, tuple(each.prompt)) for each in tasks if not isinstance(each.prompt, SpokenPrompt)}
        return tasks, reply, Spent(sum(len(ids) for _, ids in read))

    def _add_echo(self, task: TextTask) -> TextTask:
        renderer = self.planned.family.renderer
        if self.echoes is None or renderer is None or isinstance(task.prompt, SpokenPrompt):
            return task
        versions = [each for each in self.read[task.number] if not isinstance(each, SpokenPrompt)]
        whole = any(len(each) == len(task.prompt) for each in versions)
        text = self.echoes[task.number] if whole else None
        return replace(task, echo=make_echo(renderer.tokenizer, task.prompt, text))

    def _make_account(self, tasks: Sequence[TextTask]) -> Account:
        """Make a function from the tokens spent, and whether all texts ended, to OpenAI's usage.

        The function counts texts and tokens in the metrics and for the caller's quota. What was refused before its
        first token has cost nothing.
        """

        def account(spent: Spent, ended: bool) -> Json:
            usage = build_usage(spent.read, spent.made, spent.cached)
            if spent.made or ended:
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
    refuse_reward(engine, body.model)
    await want_judges(engine, body)
    planned = plan_generation(body, engine.families, engine.scoring)
    renderer = planned.family.renderer
    if renderer is None:
        refuse_upstream(planned, body)
    template = "" if renderer is None else str(renderer.tokenizer.get_chat_template(tools=body.tools))
    use = read_tool_use(body, template, () if renderer is None else renderer.tokenizer.all_special_tokens)
    messages = [message.plain() for message in body.messages]
    large = check_conversation(messages, engine.limits, "messages") > LARGE_BYTES
    inputs, thinks = make_inputs(body, use, template)
    opening = find_opening(body)
    begun = str(messages[-1].get("content") or "") if opening == "last message" else ""
    read, told = await run_pieces(lambda go_on: read_conversation(planned, messages, go_on, inputs, opening), large)
    metrics.count_normalised(told)
    forced = write_call_grammar(use) if use else None
    grammar = await _compile_grammar(engine, planned, body, forced or read_grammar(body))
    shape = shape_message(use, planned, template, read[0], begun)
    asked = messages[:-1] if opening == "last message" else messages
    ignored = list_ignored(body, renderer is None, thinks)
    return PlannedText(
        engine, metrics, body, planned, shape, [asked], [read], bool(told), None, grammar, ignored, begun
    )


async def plan_completion(engine: Engine, metrics: Metrics, body: CompletionRequest) -> PlannedText:
    """Plan the texts that continue one prompt or several.

    Raises:
        TureenError: the request cannot be answered.
    """
    refuse_reward(engine, body.model)
    await want_judges(engine, body)
    planned = plan_generation(body, engine.families, engine.scoring)
    grammar = await _compile_grammar(engine, planned, body, read_grammar(body))
    check_prompts(body, planned)
    large = sum(map(len, body.prompts())) > LARGE_BYTES
    found = await run_pieces(lambda go_on: read_prompts(body, planned, engine.limits, go_on), large)
    messages = [[{"role": "user", "content": each.text}] for each in found]
    read = [each.versions for each in found]
    echoes = [each.text for each in found] if body.echo else None
    shape = CompletionReplyShape(body.logprobs, body.return_tokens_as_token_ids)
    ignored = list_ignored(body, planned.family.renderer is None)
    return PlannedText(engine, metrics, body, planned, shape, messages, read, False, echoes, grammar, ignored)


async def _compile_grammar(
    engine: Engine, planned: Plan, body: ChatRequest | CompletionRequest, source: GrammarSource | None
) -> Grammar | None:
    if source is None:
        return None
    if planned.family.renderer is not None:
        check_bound_end(body, planned.family.renderer.tokenizer)
    return await compile_for_lane(engine.grammars, engine.models.generators[planned.family.name], source)
