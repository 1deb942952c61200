"""Bodies that share calls of the engine get the replies that each would get alone."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serve.counting import CountingEngine

from tureen.errors import TureenError, Unavailable
from tureen_serve.api.preferences import label_each
from tureen_serve.api.reward_items import PreferencesBody, ScoreBody
from tureen_serve.api.reward_plan import run_plan
from tureen_serve.api.score import plan_score, score_each
from tureen_serve.telemetry import Metrics

TEXTS = st.sampled_from(["calm", "funny calm", "funny " * 3, "", "calm " * 300])
ITEMS = st.lists(
    st.builds(lambda texts: {"prompt": "hi", "candidates": texts}, st.lists(TEXTS, min_size=1, max_size=3)),
    min_size=1,
    max_size=3,
)
OPTIONS = st.fixed_dictionaries(
    {"items": ITEMS},
    optional={
        "rewards": st.sampled_from([["calm"], ["funny"], ["bold"]]),
        "preferences": st.sampled_from([{"calm": 1.0}, {"calm": 0.25, "funny": 0.75}, {"bold": 1.0}]),
        "soup": st.booleans(),
        "truncate": st.booleans(),
        "on_error": st.sampled_from(["fail", "item"]),
        "format": st.just("full"),
    },
)


def shown(reply: Any) -> Any:
    if isinstance(reply, TureenError):
        return type(reply), reply.message, reply.param, reply.code
    return reply.model_dump()


@settings(max_examples=30, deadline=None)
@given(st.lists(OPTIONS, min_size=1, max_size=6))
def test_each_gets_what_it_would_get_alone(documents: list[dict[str, Any]]) -> None:
    for each, kind, dropped in ((score_each, ScoreBody, "format"), (label_each, PreferencesBody, "")):
        bodies: list[Any] = [
            kind.model_validate({name: value for name, value in document.items() if name != dropped})
            for document in documents
        ]

        async def ask(asked: list[Any], each: Any = each) -> list[Any]:
            return [shown(reply) for reply in await each(CountingEngine(), Metrics(), asked)]

        shared = asyncio.run(ask(bodies))
        alone = [asyncio.run(ask([body]))[0] for body in bodies]
        assert shared == alone


def test_a_call_that_fails_is_the_error_of_all_that_were_in_it() -> None:
    engine = CountingEngine()
    engine.broken = Unavailable("it is full")
    item = {"items": [{"prompt": "hi", "candidates": ["calm"]}]}
    bodies = [ScoreBody.model_validate(item), ScoreBody.model_validate(item | {"rewards": ["bold"]})]
    full, unknown = asyncio.run(score_each(engine, Metrics(), bodies))
    assert isinstance(full, Unavailable)
    assert isinstance(unknown, TureenError)
    assert unknown.param == "rewards[0]"


def test_the_engine_is_not_asked_for_nothing() -> None:
    engine = CountingEngine()
    body = {"items": [{"prompt": "hi"}], "on_error": "item"}
    (reply,) = asyncio.run(score_each(engine, Metrics(), [ScoreBody.model_validate(body)]))
    assert not isinstance(reply, TureenError)
    assert reply.data[0].error is not None
    assert engine.calls == []


def test_the_error_of_one_plan_is_raised() -> None:
    engine = CountingEngine()
    body = ScoreBody.model_validate({"items": [{"prompt": "hi", "candidates": ["calm"]}]})
    plan = plan_score(body, engine.rewards)
    scored = asyncio.run(run_plan(engine, Metrics(), plan))
    assert [len(item.outcomes) for item in scored.items] == [1]
    engine.broken = Unavailable("it is full")
    with pytest.raises(Unavailable, match="it is full"):
        asyncio.run(run_plan(engine, Metrics(), plan))
