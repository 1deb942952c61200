"""A shadow takes its share only while nothing else has work, and its faults reach nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from serve.test_inference_registry import ASK, Constant, backbone, calm, engine_of, version
from waiting import PATIENCE, let_others_run, pass_time, run_on_clock, wait_until

from tureen_serve.changes.shadow import IDLE_SECONDS, QUEUE_INPUTS, Shadow
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.readers import Outcome
from tureen_serve.runtimes.catalogue import OpenedReward
from tureen_serve.watching.shadow_watch import ShadowWatch


class Bench:
    """An engine with the reward calm, and its shadow."""

    def __init__(self, share: float = 1.0, dice: float = 0.5) -> None:
        self.live, self.next = Constant(1), Constant(2)
        self.engine = engine_of(backbone(self.live, version("calm", "a")), backbone(Constant(5), version("funny", "f")))
        self.watch = ShadowWatch(CollectorRegistry())
        self.served = backbone(self.next, version("calm", "b"))
        opened: OpenedReward = SimpleNamespace(names=("calm",))  # type: ignore[assignment]
        self.shadow = Shadow(opened, self.served, share, self.engine, self.watch, lambda: dice)
        self.engine.witness = self.shadow.take

    async def close(self) -> None:
        for each in (self.live, self.next):
            each.gate.set()
        await self.shadow.close()
        await self.served.lane.close()
        await self.engine.close()


@asynccontextmanager
async def shadowing(**options: float) -> AsyncIterator[Bench]:
    bench = Bench(**options)
    try:
        yield bench
    finally:
        await bench.close()


def test_a_call_is_answered_before_its_shadow_and_does_not_wait_for_it() -> None:
    async def run() -> None:
        async with shadowing() as bench:
            bench.next.gate.clear()
            assert await calm(bench.engine) == 1
            assert await calm(bench.engine) == 1
            await wait_until(bench.next.started.is_set)
            assert bench.shadow.counts["compared"] == 0
            bench.next.gate.set()
            await wait_until(lambda: bench.shadow.counts["compared"] == 2)
            found = bench.shadow.find_agreement("calm")
            assert found is not None
            assert (found.live, found.mean_difference) == ("a", 0.5)  # of raw scores 1 and 2 by their scale

    asyncio.run(run())


@pytest.mark.parametrize(("dice", "taken"), [(0.29, 1), (0.31, 0)])
def test_the_share_is_that_of_the_inputs(dice: float, taken: int) -> None:
    async def run() -> None:
        async with shadowing(share=0.3, dice=dice) as bench:
            await bench.engine.score(ASK, ["funny"])  # a reward that the shadow does not have
            assert bench.shadow.waiting == 0
            await calm(bench.engine)
            assert bench.shadow.waiting == taken

    asyncio.run(run())


async def fill(engine: Engine, calls: int) -> None:
    for _ in range(calls):
        await calm(engine)


def test_what_finds_no_idle_moment_or_no_place_is_dropped_and_counted() -> None:
    async def run() -> None:
        async with shadowing() as bench:
            bench.live.gate.clear()
            busy = asyncio.create_task(bench.engine.score(ASK, ["calm"], priority="batch"))
            await wait_until(bench.live.started.is_set)
            models, ours = bench.engine.models, [[Outcome({"calm": 1.0})]]
            for _ in range(QUEUE_INPUTS + 3):
                bench.shadow.take(models, ASK, ["calm"], False, ours)
            assert bench.shadow.counts["dropped"] == 3
            await let_others_run()  # one waits for an idle moment
            await pass_time(IDLE_SECONDS + 1)
            await wait_until(lambda: bench.shadow.counts["dropped"] == 4)
            assert not bench.next.started.is_set()
            bench.live.gate.set()
            await busy
            await wait_until(lambda: bench.shadow.counts["compared"] > 0)
            assert bench.watch._texts.labels("calm", "dropped")._value.get() == 4

    run_on_clock(run())


def test_a_shadow_that_fails_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> list[Any]:
        raise RuntimeError("broken")

    async def run() -> None:
        async with shadowing() as bench:
            bench.next.run = fail  # type: ignore[assignment,method-assign]
            assert await calm(bench.engine) == 1
            await wait_until(lambda: bench.shadow.counts["failed"] == 1)
            bench.next.failure = "it is dead"
            assert await calm(bench.engine) == 1
            await wait_until(lambda: bench.shadow.counts["failed"] == 2)
            assert bench.engine.failure is None

    asyncio.run(asyncio.wait_for(run(), PATIENCE))


def test_another_live_version_is_compared_anew() -> None:
    async def run() -> None:
        async with shadowing() as bench:
            await fill(bench.engine, 3)
            await wait_until(lambda: bench.shadow.counts["compared"] == 3)
            new = backbone(Constant(4), replace(version("calm", "c"), calibration=None))
            bench.engine.registry.swap(bench.engine.registry.current.served[0], new)
            await calm(bench.engine)
            await wait_until(lambda: bench.shadow.counts["compared"] == 4)
            found = bench.shadow.find_agreement("calm")
            assert found is not None
            assert (found.live, found.texts, found.fitted, found.mean_difference) == ("c", 1, False, -2)

    asyncio.run(run())
