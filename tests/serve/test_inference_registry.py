"""Models that change while requests run: what a request gets, and when the old lane is closed."""

import asyncio
import gc
import json
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve import counting
from serve.border import Caller, running
from serve.test_inference_generator_lane import END, HELLO, Reciter
from waiting import wait_until

from tureen.errors import NotFound, TureenError, Unavailable, Unprocessable
from tureen_serve.inference.engine import Engine, Group, Reward
from tureen_serve.inference.generator_lane import GeneratorLane
from tureen_serve.inference.heap import freeze_heap
from tureen_serve.inference.registry import Registry, ServedBackbone, ServedFamily
from tureen_serve.inference.scorer_lane import ScorerLane
from tureen_serve.runtimes.contract import BatchLimits, GenerationJob, Rewards, Row
from tureen_serve.runtimes.sampling_fields import Sampling

pytestmark = pytest.mark.anyio

ASK = [Group([[{"role": "assistant", "content": "calm"}]], [{"role": "user", "content": "hi"}])]
JOB = GenerationJob((1, 2), Sampling(max_tokens=4))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _heap() -> Iterator[None]:
    """Gives back what a registry froze."""
    yield
    gc.unfreeze()


class Constant:
    """A scorer that gives every text the same reward. It waits at ``gate``."""

    limits = BatchLimits()
    threads = 1
    failure: str | None = None
    dead = False
    memory_failures = 0
    description = "constant"

    def __init__(self, value: float) -> None:
        self.value = value
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()
        self.closed = False
        self.itself = self  # a cycle, which reference counting alone does not free

    def run(self, rows: Sequence[Row], fresh: bool = False) -> list[Rewards | TureenError]:
        self.started.set()
        assert self.gate.wait(20)
        return [Rewards((self.value,)) for _ in rows]

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("closed twice")
        self.closed = True


def version(name: str, fingerprint: str) -> Reward:
    return replace(counting.reward(name), fingerprint=fingerprint)


def backbone(scorer: Constant, *rewards: Reward) -> ServedBackbone:
    return ServedBackbone(ScorerLane("tiny", scorer, 1000), rewards)


def family(reciter: Reciter, name: str) -> ServedFamily:
    return ServedFamily(GeneratorLane(name, reciter), counting.family(name))


def engine_of(*served: ServedBackbone | ServedFamily) -> Engine:
    engine = Engine()
    engine.registry = Registry(served)
    return engine


@asynccontextmanager
async def serving(*served: ServedBackbone | ServedFamily) -> AsyncIterator[Engine]:
    engine = engine_of(*served)
    del served  # what is taken out is to be freed
    try:
        yield engine
    finally:
        await engine.close()


async def calm(engine: Engine) -> float:
    ((outcome,),) = await engine.score(ASK, ["calm"])
    assert outcome.error is None
    return outcome.raw["calm"]


async def test_a_name_leads_to_its_version_and_lane() -> None:
    one = backbone(Constant(1), version("calm", "a"), version("funny", "b"))
    async with serving(one) as engine:
        assert engine.registry.versions("calm") == {"a": one.lane}
        assert engine.registry.versions("funny") == {"b": one.lane}
        assert engine.registry.versions("angry") == {}
        assert list(engine.rewards) == ["calm", "funny"]


async def test_a_request_in_flight_ends_on_the_lane_it_started_with() -> None:
    first, second = Constant(1), Constant(2)
    old, new = backbone(first, version("calm", "a")), backbone(second, version("calm", "b"))
    async with serving(old) as engine:
        first.gate.clear()
        call = asyncio.create_task(calm(engine))
        assert await asyncio.to_thread(first.started.wait, 20)
        engine.registry.swap(old, new)
        assert engine.rewards["calm"].fingerprint == "b"
        assert engine.registry.versions("calm") == {"a": old.lane, "b": new.lane}
        assert await calm(engine) == 2
        assert not first.closed
        first.gate.set()
        assert await call == 1
        await engine.registry.drain()
        assert first.closed
        assert not second.closed
        assert engine.registry.versions("calm") == {"b": new.lane}
    assert second.closed


async def test_a_held_engine_sees_the_models_it_started_with_until_it_ends() -> None:
    first, second = Constant(1), Constant(2)
    old, new = backbone(first, version("calm", "a")), backbone(second, version("calm", "b"))
    async with serving(old) as engine:
        with engine.hold() as held:
            engine.registry.swap(old, new)
            assert held.rewards["calm"].fingerprint == "a"
            assert await calm(held) == 1
            with held.hold() as again:
                assert await calm(again) == 1
            assert await calm(held) == 1
            assert not first.closed
        await engine.registry.drain()
        assert first.closed
        assert await calm(engine) == 2


async def test_a_lane_nobody_holds_is_closed_at_once_and_its_name_is_unknown() -> None:
    scorer = Constant(1)
    old = backbone(scorer, version("calm", "a"))
    async with serving(old, backbone(Constant(3), version("funny", "c"))) as engine:
        with engine.hold():  # holds both, but what it may use of the other does not hold a later one
            pass
        engine.registry.remove(old)
        await engine.registry.drain()
        assert scorer.closed
        assert list(engine.rewards) == ["funny"]
        with pytest.raises(Unprocessable, match="no reward is called 'calm'; loaded: funny"):
            await calm(engine)


async def test_a_text_that_is_written_holds_its_lane() -> None:
    reciter = Reciter()
    old = family(reciter, "words")
    async with serving(old) as engine:
        reciter.dictate(JOB, HELLO)
        deltas = engine.generate("words", JOB.ids, JOB.sampling, {})
        assert await anext(deltas) == HELLO
        engine.registry.remove(old)
        with pytest.raises(NotFound, match="loaded: none"):
            engine.generate("words", JOB.ids, JOB.sampling, {})
        assert not reciter.closed
        reciter.dictate(JOB, END)
        assert [delta async for delta in deltas] == [END]
        await engine.registry.drain()
        assert reciter.closed


async def test_a_text_that_is_given_up_lets_its_lane_go() -> None:
    reciter = Reciter()
    old = family(reciter, "words")
    async with serving(old) as engine:
        reciter.dictate(JOB, HELLO)
        deltas = engine.generate("words", JOB.ids, JOB.sampling, {})
        await anext(deltas)
        engine.registry.remove(old)
        await deltas.aclose()
        await engine.registry.drain()
        assert reciter.closed


async def test_what_is_added_is_served_and_a_taken_name_changes_nothing() -> None:
    taken = Constant(9)
    async with serving(backbone(Constant(1), version("calm", "a"))) as engine:
        engine.registry.add(backbone(Constant(2), version("funny", "b")), family(Reciter(), "words"))
        assert (list(engine.rewards), list(engine.families)) == (["calm", "funny"], ["words"])
        before = engine.registry.current
        twin = backbone(taken, version("funny", "c"))
        changes: list[Callable[[], None]] = [
            lambda: engine.registry.add(twin),
            lambda: engine.registry.swap(before.served[0], twin),
            lambda: engine.registry.add(family(Reciter(), "words")),
            lambda: engine.registry.remove(twin),
            lambda: engine.registry.swap(twin, twin),
        ]
        for change in changes:
            with pytest.raises(ValueError, match=r"are called|is not served"):
                change()
        assert engine.registry.current is before
        await engine.registry.drain()
        await twin.lane.close()


async def test_a_family_takes_the_place_of_the_one_it_replaces() -> None:
    old = family(Reciter(), "words")
    async with serving(old, family(Reciter(), "rigid")) as engine:
        engine.registry.swap(old, family(Reciter(), "prose"))
        assert list(engine.families) == ["prose", "rigid"]  # the first answers requests that name none


async def test_requests_get_one_whole_version_while_versions_change() -> None:
    values = {f"v{number}": float(number) for number in range(8)}
    scorers = [Constant(value) for value in values.values()]
    (first, *others) = [backbone(scorer, version("calm", name)) for scorer, name in zip(scorers, values, strict=True)]

    async def ask(engine: Engine) -> None:
        for _ in range(20):
            with engine.hold() as held:
                seen = held.rewards["calm"].fingerprint
                await asyncio.sleep(0.001)
                assert await calm(held) == values[seen]

    async with serving(first) as engine:
        asking = [asyncio.create_task(ask(engine)) for _ in range(6)]
        old = first
        for new in others:
            await asyncio.sleep(0.01)
            engine.registry.swap(old, new)
            old = new
        await asyncio.gather(*asking)
        await engine.registry.drain()
        assert [scorer.closed for scorer in scorers] == [True] * 7 + [False]


async def test_what_was_taken_out_is_freed_although_the_heap_is_frozen() -> None:
    scorer = Constant(1)
    gone = weakref.ref(scorer)
    async with serving(backbone(scorer, version("calm", "a")), backbone(Constant(2), version("funny", "b"))) as engine:
        assert await calm(engine) == 1
        freeze_heap()
        engine.registry.remove(engine.registry.current.served[0])
        del scorer
        await engine.registry.drain()
        await wait_until(lambda: gone() is None)  # collected in a quiet moment
        assert gc.get_freeze_count() > 0


async def test_the_engine_closes_what_requests_still_hold() -> None:
    first, second = Constant(1), Constant(2)
    old, new = backbone(first, version("calm", "a")), backbone(second, version("calm", "b"))
    async with serving(old) as engine:
        with engine.hold() as held:
            engine.registry.swap(old, new)
            await engine.close()
            assert (first.closed, second.closed) == (True, True)
            with pytest.raises(Unavailable, match="shutting down"):
                await calm(held)
        engine.registry = Registry()


async def test_a_lane_that_cannot_be_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    scorer = Constant(1)
    old = backbone(scorer, version("calm", "a"))
    async with serving(old) as engine:
        scorer.closed = True
        with caplog.at_level(logging.ERROR, "tureen_serve"):
            engine.registry.remove(old)
            await engine.registry.drain()
        assert "lane tiny was removed but could not be closed" in caplog.text
        assert engine.registry.lanes == []


async def test_a_dead_lane_that_is_taken_out_is_no_failure_any_more() -> None:
    scorer = Constant(1)
    old = backbone(scorer, version("calm", "a"))
    async with serving(old) as engine:
        scorer.failure = "tiny: the engine has died"
        assert engine.failure == "tiny: the engine has died"
        engine.registry.swap(old, backbone(Constant(2), version("calm", "b")))
        assert engine.failure is None


async def test_routes_tell_the_models_of_the_moment() -> None:
    old = backbone(Constant(1), version("calm", "a"))
    engine = engine_of(old)
    async with running(engine) as app:

        async def get(path: str) -> str:
            return (await Caller(app, path).done()).text

        async def told() -> tuple[set[str], set[tuple[str, str]], list[str]]:
            cards = json.loads(await get("/v1/models"))["data"]
            metrics = text_string_to_metric_families(await get("/metrics"))
            (info,) = [each for each in metrics if each.name == "tureen_model_info"]
            labels = {(each.labels["model"], each.labels["fingerprint"]) for each in info.samples}
            return {card["fingerprint"] for card in cards}, labels, json.loads(await get("/health"))["rewards"]

        assert await told() == ({"a"}, {("calm", "a")}, ["calm"])
        engine.registry.swap(old, backbone(Constant(2), version("funny", "b")))
        assert await told() == ({"b"}, {("funny", "b")}, ["funny"])


async def test_queues_of_two_lanes_with_one_name_are_added_up() -> None:
    first, second = Constant(1), Constant(2)
    old, new = backbone(first, version("calm", "a")), backbone(second, version("calm", "b"))
    engine = engine_of(old)
    async with running(engine) as app:
        for scorer, replacement in ((first, new), (second, None)):
            scorer.gate.clear()
            body = {"items": [{"prompt": "hi", "candidates": ["calm"]}]}
            asked = Caller(app, "/v1/score", body)
            assert await asyncio.to_thread(scorer.started.wait, 20)
            if replacement is not None:
                engine.registry.swap(old, replacement)
                kept = asked
        metrics = text_string_to_metric_families((await Caller(app, "/metrics").done()).text)
        (texts,) = [each for each in metrics if each.name == "tureen_running_texts"]
        assert [(each.labels["lane"], each.value) for each in texts.samples] == [("tiny", 2)]
        first.gate.set()
        second.gate.set()
        replies = [json.loads((await each.done()).text) for each in (kept, asked)]
    assert [reply["fingerprint"]["calm"] for reply in replies] == ["a", "b"]
    assert [reply["data"][0]["candidates"][0]["scores"]["calm"]["raw"] for reply in replies] == [1, 2]
