"""The routes that a batch may go to, without their connections: the same functions, many bodies at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from tureen.errors import TureenError
from tureen.wire import ErrorReply
from tureen_serve.api.chat import PlannedText, plan_chat, plan_completion
from tureen_serve.api.preferences import label_each
from tureen_serve.api.reward_items import PreferencesBody, ScoreBody
from tureen_serve.api.score import score_each
from tureen_serve.api.text_bodies import ChatBody, CompletionBody
from tureen_serve.batches.endpoints import BatchEndpoint, BatchEndpoints, Json, LineAnswer
from tureen_serve.faults import describe_error, translate_error
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics

Reply = BaseModel | Json | TureenError
Together = Callable[[Engine, Metrics, Any], Awaitable[Sequence[Reply]]]
Ordering = Callable[[Engine, Metrics, Any], Awaitable[PlannedText]]


async def _scores(engine: Engine, metrics: Metrics, bodies: Sequence[ScoreBody], _: int) -> list[LineAnswer]:
    return await _apart(score_each, engine, metrics, [_last(body) for body in bodies])


async def _labels(engine: Engine, metrics: Metrics, bodies: Sequence[PreferencesBody], _: int) -> list[LineAnswer]:
    return await _apart(label_each, engine, metrics, [_last(body) for body in bodies])


async def _chats(engine: Engine, metrics: Metrics, bodies: Sequence[ChatBody], at_once: int) -> list[LineAnswer]:
    return await _write(engine, metrics, bodies, at_once, plan_chat)


async def _completions(
    engine: Engine, metrics: Metrics, bodies: Sequence[CompletionBody], at_once: int
) -> list[LineAnswer]:
    return await _write(engine, metrics, bodies, at_once, plan_completion)


BATCH_ENDPOINTS: BatchEndpoints = {
    "/v1/score": BatchEndpoint(ScoreBody, _scores),
    "/v1/preferences": BatchEndpoint(PreferencesBody, _labels),
    "/v1/chat/completions": BatchEndpoint(ChatBody, _chats),
    "/v1/completions": BatchEndpoint(CompletionBody, _completions),
}


async def _apart(each: Together, engine: Engine, metrics: Metrics, bodies: Sequence[Any]) -> list[LineAnswer]:
    """All together; where that fails as a whole, one by one, so that only the body at fault is an error."""
    try:
        return [_answer(reply) for reply in await each(engine, metrics, bodies)]
    except Exception as error:
        if len(bodies) == 1:
            return [_answer(translate_error(error))]
    return [answer for body in bodies for answer in await _apart(each, engine, metrics, [body])]


async def _write(
    engine: Engine, metrics: Metrics, bodies: Sequence[Any], at_once: int, ordering: Ordering
) -> list[LineAnswer]:
    """So many bodies at once. One that found no room among them gets another chance alone."""
    room = asyncio.Semaphore(at_once)

    async def written(body: BaseModel) -> LineAnswer:
        async with room:
            return await _written(engine, metrics, body, ordering)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(written(body)) for body in bodies]
    answers = [task.result() for task in tasks]
    for number, answer in enumerate(answers):
        if answer.transient:
            answers[number] = await _written(engine, metrics, bodies[number], ordering)
    return answers


async def _written(engine: Engine, metrics: Metrics, body: BaseModel, ordering: Ordering) -> LineAnswer:
    try:
        return _answer(await (await ordering(engine, metrics, _last(body))).whole())
    except Exception as error:
        return _answer(translate_error(error))


def _last(body: Any) -> Any:
    """The body with the lowest priority, whatever it asks for: nobody waits for it."""
    return body.model_copy(update={"priority": "batch"})


def _answer(reply: Reply) -> LineAnswer:
    if isinstance(reply, TureenError):
        return LineAnswer(reply.status, ErrorReply(error=describe_error(reply)).model_dump())
    return LineAnswer(HTTPStatus.OK, reply.model_dump(mode="json") if isinstance(reply, BaseModel) else reply)
