"""A caller who leaves frees its place before it costs compute, on every route. Tokens are counted where models run."""

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.artifacts import PROBE, build
from serve.border import Caller, running
from serve.route_bodies import SCORING, WRITING, about
from waiting import wait_until

from tureen.wire import TIMEOUT_HEADER
from tureen_serve.app import load_engine
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.lane import ignore_run
from tureen_serve.settings import load_settings

ALIASES = {"default": "helpful", "calm": "helpful"}
FIRST = {"items": [{"messages": PROBE}], "rewards": ["helpful"]}
TOKENS = 6
TEXT = {"prompt": "why do leaves fall?", "max_tokens": TOKENS, "logit_bias": {"2": -100}}
ENDLESS = {"max_tokens": 300, "logit_bias": {"2": -100}}


class Meter:
    """Counts the tokens that a model reads. A pass waits at ``gate`` before it begins."""

    def __init__(self, model: Any) -> None:
        self.tokens = 0
        self.gate = threading.Event()
        self.gate.set()
        self.inside = False
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, arguments: Any, named: Any) -> None:
        self.inside = True
        assert self.gate.wait(60)
        self.inside = False
        self.tokens += named["input_ids"].numel()


class Bench:
    """A real engine of tiny models, and a meter on each of the two that run."""

    def __init__(self, folder: Path) -> None:
        self.engine = load_engine(load_settings(build(folder)), ignore_run)
        lanes: Any = [*self.engine.scorers, *self.engine.generators]
        self.scorer, self.writer = lanes
        self.scores = Meter(self.scorer._scorer._backbone)
        self.texts = Meter(self.writer._stepper._model)
        self.close, self.engine.close = self.engine.close, _stay_open  # type: ignore[method-assign]


async def _stay_open() -> None:
    """The engine outlives the application of one test."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    found = Bench(tmp_path_factory.mktemp("artifacts"))
    yield found
    asyncio.run(found.close())


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def serve(engine: Engine) -> Any:
    return running(engine, aliases=ALIASES)


@pytest.mark.parametrize("path", SCORING)
def test_texts_that_wait_are_not_scored_for_a_caller_who_left(bench: Bench, path: str) -> None:
    async def work() -> None:
        async with serve(bench.engine) as app:
            bench.scores.gate.clear()
            first = Caller(app, "/v1/score", {**FIRST, "items": [{"messages": [*PROBE[:1], answer(f"first {path}")]}]})
            await wait_until(lambda: bench.scores.inside)
            second = Caller(app, path, about(SCORING[path], f"second {path}"))
            await wait_until(lambda: bench.scorer.queued_rows)
            second.hang_up()
            await second.done()
            assert (second.messages, bench.scorer.queued_rows, bench.scorer.queued_tokens) == ([], 0, 0)
            before = bench.scores.tokens
            bench.scores.gate.set()
            await first.done()
            used = json.loads(first.text)["data"][0]["candidates"][0]
            assert bench.scores.tokens - before == used["tokens"] - used["cached_tokens"]

    run(work())


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def list_calls(*more: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The routes with these fields. A response is one text, so that route has no ``n``."""
    return [(path, each) for path in WRITING for each in more if path != "/v1/responses" or "n" not in each]


@pytest.mark.parametrize(
    ("path", "more"), list_calls({}, {"stream": True}, {"n": 4}, {"n": 4, "stream": True}), ids=str
)
def test_texts_that_wait_are_not_written_for_a_caller_who_left(bench: Bench, path: str, more: Any) -> None:
    async def work() -> None:
        async with serve(bench.engine) as app:
            bench.texts.gate.clear()
            before = bench.texts.tokens
            first = Caller(app, "/v1/completions", TEXT)
            await wait_until(lambda: bench.texts.inside)
            second = Caller(app, path, {**WRITING[path], **ENDLESS, **more})
            await wait_until(lambda: bench.writer.waiting == more.get("n", 1))
            second.hang_up()
            await second.done()
            assert second.messages == []
            bench.texts.gate.set()
            await first.done()
            assert bench.texts.tokens - before == written(first)

    run(work())


@pytest.mark.parametrize(
    ("path", "more"), list_calls({}, {"n": 3}, {"candidates": {"n": 3, "preferences": {"helpful": 1}}}), ids=str
)
def test_texts_end_at_their_deadline(bench: Bench, path: str, more: Any) -> None:
    async def work() -> None:
        async with serve(bench.engine) as app:
            bench.texts.gate.clear()
            before = bench.texts.tokens
            first = Caller(app, "/v1/completions", TEXT)
            await wait_until(lambda: bench.texts.inside)
            bench.writer.speed.expect(1e9)
            late = await Caller(app, path, {**WRITING[path], **ENDLESS, **more}, {TIMEOUT_HEADER: "300"}).done()
            assert (late.status, json.loads(late.text)["error"]["code"]) == (504, "deadline_exceeded")
            bench.texts.gate.set()
            await first.done()
            assert bench.texts.tokens - before == written(first)
            assert bench.writer.running == bench.writer.waiting == 0

    run(work())


@pytest.mark.parametrize("path", WRITING)
@pytest.mark.parametrize("stream", [False, True])
def test_a_text_ends_when_its_caller_leaves(bench: Bench, path: str, stream: bool) -> None:
    """Of 300 tokens, the step that runs is the last one."""

    async def work() -> None:
        async with serve(bench.engine) as app:
            caller = Caller(app, path, {**WRITING[path], **ENDLESS, "stream": stream})
            await wait_until(lambda: bench.writer.running == 1 and (not stream or caller.text.count("data:") > 2))
            bench.texts.gate.clear()
            await wait_until(lambda: bench.texts.inside)
            before = bench.texts.tokens
            caller.hang_up()
            await caller.done()
            bench.texts.gate.set()
            await wait_until(lambda: bench.writer.running == 0)
            assert bench.texts.tokens - before == 1
            assert "[DONE]" not in caller.text
            last = await Caller(app, "/v1/completions", TEXT).done()
            assert bench.texts.tokens - before == 1 + written(last)

    run(work())


@pytest.mark.parametrize("path", WRITING)
def test_candidates_are_not_scored_for_a_caller_who_left(bench: Bench, path: str) -> None:
    async def work() -> None:
        async with serve(bench.engine) as app:
            bench.scores.gate.clear()
            before = bench.scores.tokens
            first = Caller(app, "/v1/score", {**FIRST, "items": [{"messages": [*PROBE[:1], answer(f"third {path}")]}]})
            await wait_until(lambda: bench.scores.inside)
            choice = {"max_tokens": 2, "candidates": {"n": 3, "preferences": {"helpful": 1}}}
            second = Caller(app, path, {**WRITING[path], **choice})
            await wait_until(lambda: bench.scorer.queued_rows)
            second.hang_up()
            await second.done()
            assert (second.messages, bench.scorer.queued_rows) == ([], 0)
            bench.scores.gate.set()
            await first.done()
            used = json.loads(first.text)["data"][0]["candidates"][0]
            assert bench.scores.tokens - before == used["tokens"] - used["cached_tokens"]

    run(work())


def written(caller: Caller) -> int:
    """The tokens that a model reads to write a whole text: the prompt, and each token but the last."""
    usage = json.loads(caller.text)["usage"]
    assert usage["completion_tokens"] == TOKENS
    found: int = usage["prompt_tokens"] + TOKENS - 1
    return found
