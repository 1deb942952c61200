"""Answer the lines of a batch with the functions of the routes, many bodies in one call and without HTTP."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from tureen.errors import TureenError
from tureen.wire import ErrorReply
from tureen_serve.api.chat import PlannedText, plan_chat, plan_completion
from tureen_serve.api.preferences import label_each
from tureen_serve.api.response_bodies import ResponseBody, name_field
from tureen_serve.api.responses import plan_response
from tureen_serve.api.reward_items import PreferencesBody, ScoreBody
from tureen_serve.api.score import score_each
from tureen_serve.api.text_bodies import ChatBody, CompletionBody
from tureen_serve.batches.endpoints import BatchEndpoint, BatchEndpoints, LineAnswer
from tureen_serve.faults import describe_error, find_merged_status, translate_error
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics

Reply = BaseModel | TureenError
AnswerAll = Callable[[Engine, Metrics, Any], Awaitable[Sequence[Reply]]]
PlanText = Callable[[Engine, Metrics, Any], Awaitable[PlannedText]]
NameField = Callable[[TureenError], TureenError]


def _keep(error: TureenError) -> TureenError:
    return error


async def _scores(engine: Engine, metrics: Metrics, bodies: Sequence[ScoreBody], _: int) -> list[LineAnswer]:
    return await _answer_all(score_each, engine, metrics, [_lower_priority(body) for body in bodies])


async def _labels(engine: Engine, metrics: Metrics, bodies: Sequence[PreferencesBody], _: int) -> list[LineAnswer]:
    return await _answer_all(label_each, engine, metrics, [_lower_priority(body) for body in bodies])


async def _chats(engine: Engine, metrics: Metrics, bodies: Sequence[ChatBody], at_once: int) -> list[LineAnswer]:
    return await _write(engine, metrics, bodies, at_once, plan_chat)


async def _completions(
    engine: Engine, metrics: Metrics, bodies: Sequence[CompletionBody], at_once: int
) -> list[LineAnswer]:
    return await _write(engine, metrics, bodies, at_once, plan_completion)


async def _responses(
    engine: Engine, metrics: Metrics, bodies: Sequence[ResponseBody], at_once: int
) -> list[LineAnswer]:
    return await _write(engine, metrics, bodies, at_once, plan_response, name_field)


BATCH_ENDPOINTS: BatchEndpoints = {
    "/v1/score": BatchEndpoint(ScoreBody, _scores),
    "/v1/preferences": BatchEndpoint(PreferencesBody, _labels),
    "/v1/chat/completions": BatchEndpoint(ChatBody, _chats, openai=True),
    "/v1/completions": BatchEndpoint(CompletionBody, _completions, openai=True),
    "/v1/responses": BatchEndpoint(ResponseBody, _responses, openai=True),
}


async def _answer_all(answer: AnswerAll, engine: Engine, metrics: Metrics, bodies: Sequence[Any]) -> list[LineAnswer]:
    """Answer all bodies in one call. If the call fails, answer each alone, so that only the bad body is an error."""
    try:
        return [_build_answer(reply) for reply in await answer(engine, metrics, bodies)]
    except Exception as error:
        if len(bodies) == 1:
            return [_build_answer(translate_error(error))]
    return [each for body in bodies for each in await _answer_all(answer, engine, metrics, [body])]


async def _write(
    engine: Engine, metrics: Metrics, bodies: Sequence[Any], at_once: int, plan: PlanText, name: NameField = _keep
) -> list[LineAnswer]:
    """Write the texts of ``at_once`` bodies at a time. A body that found no room is tried once more, alone.

    ``name`` gives the fields of an error the names that they have in the body.
    """
    room = asyncio.Semaphore(at_once)

    async def write(body: BaseModel) -> LineAnswer:
        async with room:
            return await _write_one(engine, metrics, body, plan, name)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(write(body)) for body in bodies]
    answers = [task.result() for task in tasks]
    for number, answer in enumerate(answers):
        if answer.transient:
            answers[number] = await _write_one(engine, metrics, bodies[number], plan, name)
    return answers


async def _write_one(engine: Engine, metrics: Metrics, body: BaseModel, plan: PlanText, name: NameField) -> LineAnswer:
    try:
        with engine.hold() as held:
            return LineAnswer(HTTPStatus.OK, await (await plan(held, metrics, _lower_priority(body))).whole())
    except Exception as error:
        fault = name(translate_error(error))
        return _build_refusal(fault, find_merged_status(fault))


def _lower_priority(body: Any) -> Any:
    """Return the body with the priority ``batch``, because no caller waits for its answer."""
    return body.model_copy(update={"priority": "batch"})


def _build_answer(reply: Reply) -> LineAnswer:
    if isinstance(reply, TureenError):
        return _build_refusal(reply, reply.status)
    return LineAnswer(HTTPStatus.OK, reply.model_dump(mode="json"))


def _build_refusal(error: TureenError, status: int) -> LineAnswer:
    return LineAnswer(status, ErrorReply(error=describe_error(error)).model_dump())
