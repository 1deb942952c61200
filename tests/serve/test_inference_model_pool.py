"""The pool: one load for all who ask, the least recently used model goes first, and never one that is in use."""

import asyncio
import gc
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from serve.pools import NAMES, Bench, make_root, run
from waiting import let_others_run, wait_until

from tureen.errors import Unavailable, Unprocessable
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.heap import freeze_heap
from tureen_serve.inference.pooled_model import BUSY_SECONDS, GIB
from tureen_serve.inference.shelf import SCAN_SECONDS, WATCH_SECONDS
from tureen_serve.runtimes.catalogue import Backbone
from tureen_serve.runtimes.footprint import Footprint
from tureen_serve.runtimes.root_folder import Source

BASE = ("digest", "config")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("made"))


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "root"))


@pytest.fixture(autouse=True)
def _heap() -> Iterator[None]:
    """Freezes what was there before, so that the pool's collections of garbage are fast."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_a_model_is_loaded_when_it_is_named_and_stays(root: Path) -> None:
    async def work(bench: Bench) -> None:
        assert bench.loaded == set()
        assert bench.loader.loads == []
        await bench.use("calm")
        await bench.use("calm")
        await bench.use("facts", "tone")
        assert bench.loader.loads == ["calm", "many"]
        assert bench.loaded == {"calm", "facts", "tone"}
        rows = {reward.name: loaded for reward, _, loaded in bench.pool.list_rewards()}
        assert rows == {"calm": True, "dry": False, "facts": True, "funny": False, "tone": True, "warm": False}
        assert bench.told == {"loaded": 2}
        assert all(each.seconds > 0 for each in bench.events)

    run(root, work)


def test_all_who_ask_wait_for_one_load_and_others_are_served_meanwhile(root: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.use("dry")
        gate = bench.loader.gates["calm"] = threading.Event()
        asking = [asyncio.create_task(bench.use("calm")) for _ in range(20)]
        await wait_until(lambda: "calm" in bench.loader.loads)
        await bench.use("dry")
        assert not any(each.done() for each in asking)
        gate.set()
        assert len({version for found in await asyncio.gather(*asking) for version in found}) == 1
        assert bench.loader.loads == ["dry", "calm"]

    run(root, work)


def test_a_load_that_hangs_is_found(root: Path) -> None:
    async def work(bench: Bench) -> None:
        engine = Engine(pool=bench.pool, stuck_seconds=30)
        gate = bench.loader.gates["calm"] = threading.Event()
        asking = asyncio.create_task(bench.use("calm"))
        await wait_until(lambda: "calm" in bench.loader.loads)
        assert engine.death is None
        with pytest.MonkeyPatch.context() as patch:
            now = time.monotonic()
            patch.setattr(time, "monotonic", lambda: now + 31)
            death = engine.death or ""
            assert death.startswith("the load of a model is stuck: it has run for 31.")
            assert death.endswith("the longest allowed is 30 s (`limits.stuck_seconds`)")
        gate.set()
        await asking
        assert (bench.pool.turn.held_seconds, engine.death) == (0, None)

    run(root, work)


def test_loads_run_one_at_a_time(root: Path) -> None:
    async def work(bench: Bench) -> None:
        gate = threading.Event()
        bench.loader.gates = dict.fromkeys(NAMES, gate)
        asking = [asyncio.create_task(bench.use(name)) for name in NAMES]
        await wait_until(lambda: bench.loader.running)
        await asyncio.wait(asking, timeout=0.3)  # time in which a second load would begin
        assert len(bench.loader.loads) == 1
        gate.set()
        await asyncio.gather(*asking)
        assert sorted(bench.loader.loads) == sorted(NAMES)
        assert bench.loader.most_running == 1

    run(root, work)


def test_the_least_recently_used_model_makes_room(root: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.use("calm")
        await bench.use("dry")
        await bench.use("calm")
        await bench.use("funny")
        assert bench.loaded == {"calm", "funny"}
        assert bench.loader.scorers["dry"].closed
        assert not bench.loader.scorers["calm"].closed
        await bench.use("warm")
        assert bench.loaded == {"funny", "warm"}
        assert bench.told == {"loaded": 4, "evicted": 2}

    run(root, work, 2)


def test_a_model_is_closed_before_the_next_one_is_loaded(root: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.use("calm")
        first = bench.loader.scorers["calm"]
        gate = bench.loader.gates["dry"] = threading.Event()
        asking = asyncio.create_task(bench.use("dry"))
        await wait_until(lambda: "dry" in bench.loader.loads)
        assert first.closed
        gate.set()
        await asking

    run(root, work, 1)


def test_a_model_in_use_is_never_unloaded(root: Path) -> None:
    async def work(bench: Bench) -> None:
        with ExitStack() as leases:
            await bench.take(leases, "calm")
            await bench.use("dry")
            await bench.use("funny")  # dry was used later, but it is idle
            assert bench.loaded == {"calm", "funny"}
            with ExitStack() as more:
                await bench.take(more, "funny")
                busy = await bench.fault("warm")
                assert isinstance(busy, Unavailable)
                assert (busy.code, busy.retry_after, busy.param) == ("models_busy", BUSY_SECONDS, "rewards.warm")
                assert "warm needs" in busy.message
                assert "have not ended" in busy.message
                assert "`rewards_memory_gib` is" in busy.message
                assert bench.loaded == {"calm", "funny"}
            await bench.use("warm")
            assert bench.loaded == {"calm", "warm"}
        assert bench.told["failed"] == 0  # it is asked again, and nothing was wrong with it

    run(root, work, 2, room_seconds=0)


def test_a_user_of_a_load_that_has_ended_keeps_the_model_before_it_goes_on(root: Path) -> None:
    async def work(bench: Bench) -> None:
        found = await asyncio.gather(*(bench.use(name) for name in NAMES * 5))
        assert all(len(each) == 1 for each in found)
        assert bench.loader.loads == list(NAMES)  # those who wait for one model are answered together

    run(root, work, 1)


def test_models_that_are_larger_than_the_bound_are_refused_and_nothing_is_unloaded(root: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.loader.sizes = {"calm": Footprint(GIB), "dry": Footprint(2 * GIB), "funny": Footprint(3 * GIB)}
        await bench.use("calm")
        alone = await bench.fault("funny")
        assert isinstance(alone, Unprocessable)
        assert alone.message == ("funny needs 3 GiB for weights and `rewards_memory_gib` is 2.5; raise the bound")
        assert (alone.code, alone.param) == ("model_too_large", "rewards.funny")
        together = await bench.fault("calm", "dry")
        assert isinstance(together, Unprocessable)
        assert "calm and dry together need 3 GiB" in together.message
        assert (bench.loaded, bench.loader.loads) == ({"calm"}, ["calm"])

    run(root, work, 5 * GIB // 2)


def test_adapters_on_one_base_count_it_once(root: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.loader.sizes = {name: Footprint(1, BASE, 10) for name in ("calm", "dry", "funny")}
        for name in ("calm", "dry", "funny"):
            await bench.use(name)
        assert bench.loaded == {"calm", "dry", "funny"}
        bench.loader.sizes["warm"] = Footprint(10)
        await bench.use("warm")  # the base goes only with the last adapter
        assert bench.loaded == {"warm"}

    run(root, work, 13)


# --------------------------------------------------------------------------- failures


def test_a_model_that_cannot_be_served_is_not_loaded_again_until_its_folder_changes(root: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.loader.errors["calm"] = Unprocessable("calm cannot be served: a probe differs", code="model_unusable")
        asked = await asyncio.gather(*(bench.use("calm") for _ in range(5)), return_exceptions=True)
        assert {str(each) for each in asked} == {"calm cannot be served: a probe differs"}
        for _ in range(5):
            bench.now += 1000
            again = await bench.fault("calm")
            assert (type(again), again.code, again.param) == (Unprocessable, "model_unusable", "rewards.calm")
        assert bench.loader.loads == ["calm"]
        assert bench.told == {"failed": 1}
        bench.loader.errors.clear()
        (root / "calm/README.md").write_text("mended")
        await bench.look()
        await bench.use("calm")
        assert bench.loader.loads == ["calm", "calm"]

    run(root, work)


def test_a_cause_that_lies_elsewhere_is_tried_again_after_a_while(root: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.loader.errors["calm"] = Unavailable("the base is missing", code="model_not_loaded", retry_after=30)
        for _ in range(3):
            bench.now += 9
            assert (await bench.fault("calm")).retry_after == 30
        assert bench.loader.loads == ["calm"]
        bench.loader.errors.clear()
        bench.now += 30
        await bench.use("calm")

    run(root, work)


def test_an_error_that_nobody_foresaw_reaches_who_asked_and_is_not_remembered(root: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.loader.errors["calm"] = RuntimeError("of the inside")
        with pytest.raises(RuntimeError, match="of the inside"):
            await bench.use("calm")
        bench.loader.errors.clear()
        await bench.use("calm")

    run(root, work)


def test_what_failed_frees_what_it_had(root: Path) -> None:
    class Weights:
        pass

    async def work(bench: Bench) -> None:
        held = []

        def fail(source: Source) -> Backbone:
            weights = Weights()
            held.append(weakref.ref(weights))
            raise Unprocessable("no", code="model_unusable")

        bench.loader.load = fail  # type: ignore[method-assign]
        await bench.fault("calm")
        await bench.fault("calm")
        await let_others_run()
        gc.collect()
        assert [each() for each in held] == [None]

    run(root, work)


def test_a_name_that_is_unknown_or_refused_is_told_at_its_field(root: Path) -> None:
    async def work(bench: Bench) -> None:
        unknown = await bench.fault("calm", "nobody")
        assert (type(unknown), unknown.param, unknown.code) == (Unprocessable, "rewards.nobody", "unknown_reward")
        assert unknown.message == "unknown reward 'nobody'; known: calm, dry, facts, funny, tone, warm"
        assert bench.loader.loads == []
        shutil.copytree(root / "calm", root / "calm-v2")
        await bench.look()
        assert "two rewards are called 'calm'" in (await bench.fault("calm")).message

    run(root, work)


def test_a_lane_that_has_died_is_loaded_again(root: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.use("calm")
        dead = bench.loader.scorers["calm"]
        dead.failure = "it has died"
        await bench.use("calm")
        await bench.settle()
        assert dead.closed
        assert bench.loader.loads == ["calm", "calm"]

    run(root, work)


# --------------------------------------------------------------------------- folders that change


def test_a_new_folder_is_found_when_its_name_is_asked_for(root: Path, made: Path) -> None:
    shutil.rmtree(root / "calm")

    async def work(bench: Bench) -> None:
        assert "unknown reward 'calm'" in (await bench.fault("calm")).message
        shutil.copytree(made / "calm", root / "calm")
        bench.now += SCAN_SECONDS
        await bench.use("calm")

    run(root, work)


def test_a_folder_that_has_gone_is_offered_until_its_model_is_unloaded(root: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.use("calm")
        shutil.rmtree(root / "calm")
        await bench.look()
        await bench.use("calm")
        assert bench.loader.loads == ["calm"]
        await bench.use("dry")
        assert "unknown reward 'calm'" in (await bench.fault("calm")).message

    run(root, work, 1)


def test_a_folder_that_is_replaced_is_served_anew_and_requests_in_flight_end_on_the_old_model(root: Path) -> None:
    async def work(bench: Bench) -> None:
        with ExitStack() as leases:
            (before,) = await bench.take(leases, "calm")
            old = bench.loader.scorers["calm"]
            (root / "calm/README.md").write_text("newer")
            await bench.look()
            assert await bench.use("calm") != list(before.versions.values())
            assert not old.closed
        await bench.settle()
        assert old.closed
        assert len(bench.pool.loaded) == 1

    run(root, work)


def test_a_replaced_folder_is_noticed_by_requests_for_its_name(root: Path) -> None:
    async def work(bench: Bench) -> None:
        before = await bench.use("calm")
        (root / "calm/README.md").write_text("newer")
        assert await bench.use("calm") == before
        bench.now += WATCH_SECONDS
        assert await bench.use("calm") == before  # who asks does not wait for the folders to be read
        await bench.settle()
        assert await bench.use("calm") != before
        assert bench.loader.loads == ["calm", "calm"]

    run(root, work)


def test_an_idle_model_of_a_replaced_folder_is_unloaded_when_that_is_seen(root: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.use("calm")
        (root / "calm/README.md").write_text("newer")
        await bench.look()
        await bench.settle()
        assert bench.loader.scorers["calm"].closed
        assert bench.loaded == set()

    run(root, work)


# --------------------------------------------------------------------------- those who leave


def test_a_load_goes_on_when_all_who_waited_have_left(root: Path) -> None:
    async def work(bench: Bench) -> None:
        gate = bench.loader.gates["calm"] = threading.Event()
        asking = [asyncio.create_task(bench.use("calm")) for _ in range(3)]
        await wait_until(lambda: "calm" in bench.loader.loads)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        gate.set()
        await wait_until(lambda: bench.loaded == {"calm"})
        await bench.use("dry")  # nobody holds it
        assert bench.loaded == {"dry"}

    run(root, work, 1)


def test_who_waits_when_the_server_ends_is_told_so(root: Path) -> None:
    async def work(bench: Bench) -> None:
        gate = bench.loader.gates["calm"] = threading.Event()
        asking = [asyncio.create_task(bench.fault(name)) for name in ("calm", "dry")]
        await wait_until(lambda: "calm" in bench.loader.loads)
        await let_others_run()
        await bench.pool.close()
        assert {each.code for each in await asyncio.gather(*asking)} == {"draining"}
        assert (await bench.fault("funny")).code == "draining"
        gate.set()

    run(root, work)


def test_weights_in_reference_cycles_are_freed_beside_a_frozen_heap(root: Path) -> None:
    async def work(bench: Bench) -> None:
        freeze_heap()
        await bench.use("calm")
        gone = weakref.ref(bench.loader.scorers.pop("calm"))
        await bench.use("dry")
        await bench.settle()
        assert gone() is None

    run(root, work, 1)
