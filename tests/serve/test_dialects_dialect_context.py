"""The context of every dialect: outcomes in order, errors at their fields, meters read, and which reward is meant."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from serve.border import served
from serve.counting import CONTEXT, CountingEngine

from tureen.errors import NotFound, ServerFault, TureenError, Unavailable, Unprocessable
from tureen_serve.api.reading_headers import ReadingNotes
from tureen_serve.api.server_state import ServerState
from tureen_serve.dialects import DIALECTS, ERROR_BUILDERS
from tureen_serve.dialects.dialect_context import DialectContext
from tureen_serve.inference.engine import FinishedText, Group

T = TypeVar("T")
ASK = [{"role": "user", "content": "hi"}]


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def in_context(use: Callable[[DialectContext], Awaitable[T]], model: str | None = "calm", **aliases: str) -> T:
    """What comes of a context of the counting engine."""

    async def run() -> T:
        server = ServerState(aliases)
        server.set_engine(CountingEngine(), 0.0)
        return await use(DialectContext(server, server.require_engine(), model, ReadingNotes()))

    return asyncio.run(run())


def fault(use: Callable[[DialectContext], Awaitable[Any]]) -> TureenError:
    with pytest.raises(TureenError) as caught:
        in_context(use)
    return caught.value


def test_the_body_names_the_reward_before_the_address_does() -> None:
    async def names(context: DialectContext) -> list[str]:
        return [
            (await context.select()).name,
            (await context.select(None)).name,
            (await context.select("funny")).name,
            (await context.select("mine")).name,
        ]

    assert in_context(names, "calm", mine="calm,funny") == ["calm", "calm", "funny", "calm,funny"]


def test_nothing_named_among_several_is_not_found() -> None:
    async def name(context: DialectContext) -> str:
        return (await context.select()).name

    with pytest.raises(NotFound):
        in_context(name, None)
    assert in_context(name, None, default="funny") == "funny"


def test_rewards_and_the_length_that_all_of_them_read() -> None:
    async def known(context: DialectContext) -> tuple[list[str], int]:
        wanted = await context.select("calm=1,funny=1")
        return [reward.name for reward in context.list_rewards(wanted)], context.find_max_length(wanted)

    assert in_context(known) == (["calm", "funny"], CONTEXT)


def test_outcomes_are_flat_and_in_order() -> None:
    async def outcomes(context: DialectContext) -> list[float]:
        groups: list[Group | FinishedText] = [
            Group([answer("calm"), answer("calm calm")], ASK),
            FinishedText("calm calm calm"),
            FinishedText("none"),
        ]
        wanted = await context.select()
        return [wanted.value(outcome) for outcome in await context.score_texts(wanted, groups)]

    assert in_context(outcomes) == [1.0, 2.0, 3.0, 0.0]


def test_no_texts_are_no_outcomes() -> None:
    async def outcomes(context: DialectContext) -> int:
        return len(await context.score_all(await context.select(), []))

    assert in_context(outcomes) == 0


def test_an_error_stays_in_its_place() -> None:
    async def outcomes(context: DialectContext) -> list[str | None]:
        texts = [FinishedText("calm"), FinishedText("boundless"), FinishedText("word " * CONTEXT)]
        found = await context.score_texts(await context.select(), texts)
        assert [outcome.raw for outcome in found[1:]] == [{}, {}]
        return [outcome.error.code if outcome.error else None for outcome in found]

    assert in_context(outcomes) == [None, "non_finite_score", "context_length_exceeded"]


def test_sound_raises_the_first_error_at_its_field() -> None:
    async def texts(context: DialectContext) -> Any:
        return await context.score_all(
            await context.select(), [FinishedText("calm"), FinishedText("boundless"), FinishedText("x" * 9999)]
        )

    async def group(context: DialectContext) -> Any:
        answers = [answer("calm"), answer("word " * CONTEXT)]
        return await context.score_all(await context.select(), [Group(answers, ASK)], at="documents[{}]".format)

    found = fault(texts)
    assert isinstance(found, ServerFault)
    assert (found.param, found.code) == ("input[1]", "non_finite_score")
    found = fault(group)
    assert isinstance(found, Unprocessable)
    assert (found.param, found.code) == ("documents[1]", "context_length_exceeded")


def test_what_is_too_long_is_cut_where_that_is_asked() -> None:
    async def outcomes(context: DialectContext) -> list[bool]:
        texts = [FinishedText("word " * CONTEXT), FinishedText("calm")]
        return [outcome.truncated for outcome in await context.score_all(await context.select(), texts, truncate=True)]

    assert in_context(outcomes) == [True, False]


def test_one_text_lays_its_error_to_the_prompt_or_to_the_answer() -> None:
    async def by_answer(context: DialectContext) -> Any:
        group = Group([answer("word " * CONTEXT)], ASK)
        return await context.score_one(await context.select(), group, prompt="prompt", answer="response")

    assert fault(by_answer).param == "response"

    async def sound(context: DialectContext) -> float:
        wanted = await context.select()
        return wanted.value(await context.score_one(wanted, FinishedText("calm"), prompt="prompt", answer="response"))

    assert in_context(sound) == 1.0


def test_texts_and_scores_are_metered_as_the_native_route_meters_them() -> None:
    async def count(context: DialectContext) -> list[float]:
        texts = [FinishedText("calm"), FinishedText("boundless"), FinishedText("word " * CONTEXT)]
        await context.score_texts(await context.select(), texts)
        metrics = context.server.metrics
        samples = [metrics.texts.labels("calm", each) for each in ("scored", "failed")]
        return [sample._value.get() for sample in (*samples, metrics.nonfinite.labels("calm"))]

    assert in_context(count) == [1.0, 2.0, 1.0]


def test_an_error_of_the_whole_call_is_raised() -> None:
    async def broken(context: DialectContext) -> Any:
        context.engine.broken = Unavailable("full", retry_after=7)  # type: ignore[attr-defined]
        return await context.score_texts(await context.select(), [FinishedText("calm")])

    found = fault(broken)
    assert isinstance(found, Unavailable)
    assert found.retry_after == 7


# --------------------------------------------------------------------------- the table of dialects


def test_no_two_dialects_answer_one_path() -> None:
    routes = [route for dialect in DIALECTS for route in dialect.router.routes]
    answered = [(route.path, method) for route in routes for method in route.methods]  # type: ignore[attr-defined]
    assert len(answered) == len(set(answered))


def test_every_dialects_errors_are_its_own_on_all_of_its_paths() -> None:
    for dialect in DIALECTS:
        paths = {route.path for route in dialect.router.routes}  # type: ignore[attr-defined]
        assert {ERROR_BUILDERS.get(path) for path in paths} == {dialect.build_error}


def test_what_a_server_that_loads_says_is_in_the_dialects_words() -> None:
    engine = CountingEngine()
    with served(engine) as client:
        engine.down = "the runtime ended"
        assert client.post("/classify", json={"input": "calm"}).json()["error"]["code"] == 503
        assert client.post("/sglang/v1/embeddings", json={"input": "calm"}).json()["object"] == "error"
        assert client.post("/get_reward", json={"query": "calm"}).json()["error"]["code"] == "not_ready"
