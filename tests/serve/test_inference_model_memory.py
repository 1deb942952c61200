"""Models that do not fit together have turns: who waits, who goes, and that nobody waits for ever or is lost."""

import asyncio
import gc
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from serve.pools import NAMES, Bench, make_root, run
from waiting import let_others_run, pass_time, wait_until

from tureen.errors import Unavailable, Unprocessable
from tureen_serve.inference.model_memory import ROOM_SECONDS, STAY_SECONDS
from tureen_serve.inference.pooled_model import BUSY_SECONDS, PooledModel, choose_victims
from tureen_serve.runtimes.footprint import Footprint
from tureen_serve.runtimes.rewards_root import list_sources
from tureen_serve.runtimes.root_folder import Source

ROUNDS = 15
CALLERS = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("made"))


@pytest.fixture(autouse=True)
def _heap() -> Iterator[None]:
    """Freezes what was there before, so that the pool's collections of garbage are fast."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_of_two_models_under_steady_load_none_starves_and_no_request_is_lost(root: Path) -> None:
    async def work(bench: Bench) -> None:
        answered: Counter[str] = Counter()

        def is_over() -> bool:
            return min(answered["calm"], answered["dry"]) >= ROUNDS

        async def call(name: str) -> None:
            while not is_over():
                with ExitStack() as leases:
                    (served,) = await bench.take(leases, name)
                    scorer = bench.loader.scorers[name]
                    await asyncio.sleep(0)
                    # it ends after another one has begun, unless the model takes no more: so the model never is idle
                    await wait_until(lambda: bench.users[name] > 1 or name in bench.leaving or is_over())
                    assert set(served.versions) == {name}
                    assert not scorer.closed
                    answered[name] += 1

        await asyncio.gather(*(call(name) for name in ("calm", "dry") for _ in range(CALLERS)))
        assert min(answered.values()) >= ROUNDS
        assert bench.loader.loads[:3] == ["calm", "dry", "calm"]

    run(root, work, 1)


def test_a_model_that_must_go_takes_no_requests_and_its_last_ones_finish(root: Path) -> None:
    async def work(bench: Bench) -> None:
        with ExitStack() as first, ExitStack() as second:
            await bench.take(first, "calm")
            await bench.take(second, "calm")
            old = bench.loader.scorers["calm"]
            other = asyncio.create_task(bench.use("dry"))
            await wait_until(lambda: bench.leaving == {"calm"})
            again = [asyncio.create_task(bench.use("calm")) for _ in range(3)]
            first.close()
            await let_others_run()
            assert bench.waiting == ["dry", "calm", "calm", "calm"]
            assert not old.closed
        await asyncio.gather(other, *again)
        assert old.closed
        assert bench.loader.loads == ["calm", "dry", "calm"]

    run(root, work, 1)


def test_the_model_that_was_loaded_first_goes_first(root: Path) -> None:
    async def work(bench: Bench) -> None:
        with ExitStack() as leases:
            for name in ("calm", "dry"):
                await bench.take(leases, name)
            await pass_time(STAY_SECONDS)
            await bench.use("calm")  # the last use does not matter where all are in use
            waiting = asyncio.create_task(bench.use("funny"))
            await wait_until(lambda: bench.leaving)
            assert bench.leaving == {"calm"}
            await bench.use("dry")
        await waiting

    run(root, work, 2)


def test_an_idle_model_goes_before_one_that_is_leaving(root: Path) -> None:
    async def work(bench: Bench) -> None:
        with ExitStack() as first:
            await bench.take(first, "calm")
            with ExitStack() as second:
                await bench.take(second, "dry")
                await pass_time(STAY_SECONDS)
                waiting = asyncio.create_task(bench.use("funny"))
                await wait_until(lambda: bench.leaving == {"calm"})
                again = asyncio.create_task(bench.use("calm"))
            await asyncio.gather(waiting, again)
            assert bench.loader.loads == ["calm", "dry", "funny"]
            assert bench.loaded == {"calm", "funny"}

    run(root, work, 2)


# --------------------------------------------------------------------------- those who wait


def test_requests_for_several_models_cannot_stop_each_other(root: Path) -> None:
    async def work(bench: Bench) -> None:
        draw = random.Random(7)
        wishes = [draw.sample(NAMES, draw.randint(1, 3)) for _ in range(60)]

        async def call(names: list[str]) -> None:
            with ExitStack() as leases:
                served = await bench.take(leases, *names)
                assert {name for each in served for name in each.versions} == set(names)
                for _ in range(draw.randint(0, 20)):
                    assert not any(bench.loader.scorers[name].closed for name in names)
                    await asyncio.sleep(0)

        await asyncio.gather(*map(call, wishes))
        assert sum(bench.users.values()) == 0

    run(root, work, 3)


def test_a_request_for_two_models_holds_none_while_it_waits(root: Path) -> None:
    async def work(bench: Bench) -> None:
        with ExitStack() as leases:
            await bench.take(leases, "calm")
            await bench.take(leases, "dry")
            await pass_time(STAY_SECONDS)
            both = [asyncio.create_task(bench.use(*names)) for names in (("calm", "funny"), ("dry", "warm"))]
            await wait_until(lambda: bench.leaving)
            assert bench.leaving == {"dry"}  # calm stays, since the first request needs it
            assert bench.users == {"calm": 1, "dry": 1}
        await asyncio.gather(*both)
        assert bench.loader.loads == ["calm", "dry", "funny", "dry", "warm"]

    run(root, work, 2)


def test_a_request_that_leaves_lets_the_model_take_requests_again(root: Path) -> None:
    async def work(bench: Bench) -> None:
        with ExitStack() as leases:
            await bench.take(leases, "calm")
            waiting = [asyncio.create_task(bench.use("dry")) for _ in range(2)]
            await wait_until(lambda: bench.leaving == {"calm"})
            again = asyncio.create_task(bench.use("calm"))
            await let_others_run()
            for each in waiting:
                each.cancel()
            await again
            assert bench.leaving == set()
        assert bench.loader.loads == ["calm"]
        assert all(each.cancelled() for each in waiting)

    run(root, work, 1)


def test_the_next_request_goes_on_when_the_first_has_left(root: Path) -> None:
    async def work(bench: Bench) -> None:
        with ExitStack() as leases:
            await bench.take(leases, "calm")
            first, second = (asyncio.create_task(bench.use("dry")) for _ in range(2))
            await wait_until(lambda: bench.leaving == {"calm"})
            first.cancel()
        await second
        assert bench.loader.loads == ["calm", "dry"]

    run(root, work, 1)


def test_callers_that_leave_at_any_time_take_nothing_with_them(root: Path) -> None:
    async def work(bench: Bench) -> None:
        draw = random.Random(3)

        async def call(name: str) -> None:
            with ExitStack() as leases:
                await bench.take(leases, name)
                for _ in range(draw.randint(0, 30)):
                    assert not bench.loader.scorers[name].closed
                    await asyncio.sleep(0)

        calls = [asyncio.create_task(call(draw.choice(NAMES))) for _ in range(120)]
        while not all(each.done() for each in calls):
            draw.choice(calls[:60]).cancel()
            await asyncio.sleep(0.001)
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [each for each in found[60:] if each is not None] == []
        assert {type(each) for each in found[:60]} <= {asyncio.CancelledError, type(None)}
        assert (sum(bench.users.values()), bench.waiting, bench.leaving) == (0, [], set())

    run(root, work, 2)


def test_a_load_that_fails_costs_only_those_who_wait_for_it(root: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.loader.errors["dry"] = Unprocessable("dry cannot be served", code="model_unusable")
        with ExitStack() as leases:
            await bench.take(leases, "calm", "warm")
            await pass_time(STAY_SECONDS)
            failing = [asyncio.create_task(bench.fault("dry")) for _ in range(3)]
            both = asyncio.create_task(bench.fault("funny", "dry"))
            await wait_until(lambda: bench.leaving == {"calm"})
            others = [asyncio.create_task(bench.use(name)) for name in ("calm", "funny", "calm")]
        faults = await asyncio.gather(*failing, both)
        assert {each.code for each in faults} == {"model_unusable"}
        assert [each.param for each in faults] == ["rewards.dry"] * 4
        await asyncio.gather(*others)
        assert bench.loader.loads.count("dry") == 1

    run(root, work, 2)


def test_a_model_whose_folder_changes_while_it_leaves_is_served_anew(root: Path) -> None:
    async def work(bench: Bench) -> None:
        with ExitStack() as leases:
            (before,) = await bench.take(leases, "calm")
            waiting = asyncio.create_task(bench.use("dry"))
            await wait_until(lambda: bench.leaving == {"calm"})
            (root / "calm/README.md").write_text("newer")
            await bench.look()
            again = asyncio.create_task(bench.use("calm"))
        await waiting
        assert await again != list(before.versions.values())

    run(root, work, 1)


@pytest.mark.parametrize("loads", [False, True])
def test_who_waits_when_the_server_ends_is_told_so(root: Path, loads: bool) -> None:
    async def work(bench: Bench) -> None:
        gate = bench.loader.gates["dry"] = threading.Event()
        with ExitStack() as leases:
            await bench.take(leases, "calm")
            asking = [asyncio.create_task(bench.fault(name)) for name in ("dry", "dry", "funny")]
            await wait_until(lambda: bench.leaving == {"calm"})
            asking.append(asyncio.create_task(bench.fault("calm")))
            if loads:
                leases.close()
                await wait_until(lambda: "dry" in bench.loader.loads)
            await bench.pool.close()
            faults = await asyncio.gather(*asking)
            assert {(each.code, each.retry_after) for each in faults} == {("draining", 1)}
        assert bench.loader.scorers["calm"].closed
        gate.set()  # what was still loaded is closed too, see run
        if loads:
            await wait_until(lambda: "dry" in bench.loader.scorers)

    run(root, work, 1)


# --------------------------------------------------------------------------- bounds of time


def test_a_load_waits_for_room_only_for_a_while_and_the_model_in_use_goes_on(root: Path) -> None:
    async def work(bench: Bench) -> None:
        with ExitStack() as leases:
            await bench.take(leases, "calm")
            waiting = asyncio.create_task(bench.fault("dry"))
            await wait_until(lambda: bench.leaving == {"calm"})
            again = asyncio.create_task(bench.use("calm"))
            await pass_time(ROOM_SECONDS - 1)
            assert not waiting.done()
            assert not again.done()
            await pass_time(1)
            busy = await waiting
            assert isinstance(busy, Unavailable)
            assert (busy.code, busy.retry_after) == ("models_busy", BUSY_SECONDS)
            await again
            # the next one that waits gives it time
            later = asyncio.create_task(bench.use("dry"))
            await let_others_run()
            await bench.use("calm")
            await pass_time(STAY_SECONDS)
            await wait_until(lambda: bench.leaving == {"calm"})
        await later
        assert bench.loader.loads == ["calm", "dry"]

    run(root, work, 1, room_seconds=ROOM_SECONDS)


def test_a_model_takes_requests_as_long_as_its_load_took(root: Path) -> None:
    async def work(bench: Bench) -> None:
        gate = bench.loader.gates["calm"] = threading.Event()
        with ExitStack() as leases:
            taking = asyncio.create_task(bench.take(leases, "calm"))
            await wait_until(lambda: "calm" in bench.loader.loads)
            await pass_time(STAY_SECONDS / 2)
            gate.set()
            await taking
            waiting = asyncio.create_task(bench.use("dry"))
            await let_others_run()
            await bench.use("calm")
            assert bench.leaving == set()
            await pass_time(STAY_SECONDS / 2)
            await wait_until(lambda: bench.leaving == {"calm"})
        await waiting

    run(root, work, 1)


# --------------------------------------------------------------------------- the choice


@pytest.fixture(scope="module")
def sources(root: Path) -> list[Source]:
    return [each for each in list_sources(root, {}) if isinstance(each, Source)]


def choose(models: list[PooledModel], needed: int, bound: int, **given: Any) -> list[str] | None:
    found = choose_victims(models, Footprint(needed), bound, **given)
    return None if found is None else [each.source.folder.name for each in found]


def test_idle_models_go_first_and_no_more_than_needed(sources: list[Source]) -> None:
    served: Any = None
    calm, dry, funny = (
        PooledModel(source, Footprint(size), served, loaded=place, touched=3 - place, users=users)
        for place, (source, size, users) in enumerate(zip(sources, (1, 1, 8), (0, 0, 1), strict=False))
    )
    models = [calm, dry, funny]
    assert choose(models, 1, 11) == []
    assert choose(models, 1, 10) == ["dry"]
    assert choose(models, 2, 10) == ["dry", "calm"]
    assert choose(models, 3, 10) == ["funny"]  # without it both small ones have room
    assert choose(models, 9, 10) == ["dry", "funny"]
    assert choose(models, 10, 10) == ["dry", "calm", "funny"]
    assert choose(models, 3, 10, kept={funny.source.key}) is None
    funny.stays_until = 5.0
    assert choose(models, 3, 10, now=4.0) is None
    assert choose(models, 3, 10, now=5.0) == ["funny"]


def test_of_models_in_use_the_one_that_leaves_already_goes_first(sources: list[Source]) -> None:
    served: Any = None
    models = [
        PooledModel(source, Footprint(1), served, loaded=place, users=1) for place, source in enumerate(sources[:3])
    ]
    assert choose(models, 1, 3) == ["calm"]
    models[2].leaving = True
    assert choose(models, 1, 3) == [models[2].source.folder.name]
