"""Whether a version has room beside the old one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from serve.test_inference_registry import Constant, backbone, version

from tureen.errors import Conflict
from tureen_serve.changes.room import Room
from tureen_serve.inference.registry import Registry, ServedBackbone
from tureen_serve.limit_settings import ServerLimits
from tureen_serve.memory_plan import GIB, MIB, plan_memory

LIMITS = {"prompt_mib": 512, "bodies_mib": 16, "kept_scores": 0, "queue_tokens": 1}


class Bench:
    """A room over a registry with one model, and the capacities that kept prompts were given."""

    def __init__(self, memory_gib: float | None, free: int | None = None) -> None:
        limits = ServerLimits(memory_gib=memory_gib, **LIMITS)
        self.old = backbone(Constant(1), version("calm", "a"))
        self.registry = Registry([self.old])
        self.prompts: list[int] = []
        plan = plan_memory(limits, GIB, 1, 0, workspace=64 * MIB)
        self.room = Room(limits, plan, 64 * MIB, self.registry, self.prompts.append, lambda: free)


@contextmanager
def fails(*says: str) -> Iterator[None]:
    with pytest.raises(Conflict) as caught:
        yield
    assert caught.value.code == "no_room"
    assert all(each in caught.value.message for each in says), caught.value.message


async def replace(bench: Bench, size: int, freed: int) -> ServedBackbone:
    """Take the model's place, as :class:`ServedRewards` does."""
    new = backbone(Constant(2), version("calm", "b"))
    bench.room.note_added(new, size)
    bench.room.note_ended(bench.old, freed)
    bench.registry.swap(bench.old, new)
    return new


def test_kept_prompts_make_room_and_get_it_back() -> None:
    async def run() -> None:
        bench = Bench(memory_gib=2.25)  # 1 loaded, 0.5 prompts, 64 MiB a batch, 64 MiB bodies, 0.25 heap
        bench.room.check("calm", 512 * MIB)
        assert bench.prompts.pop() // MIB == pytest.approx(320, abs=1)
        with fails("calm needs 1.06 GiB", "`limits.memory_gib` is 2.25, of which 1.38 are taken"):
            bench.room.check("calm", GIB)
        assert bench.prompts == []
        new = await replace(bench, 512 * MIB, 512 * MIB)
        await bench.registry.drain()
        bench.room.settle()
        assert bench.prompts.pop() // MIB == 512  # as large as before: the old one is gone
        bench.room.check("calm", 512 * MIB)
        bench.room.note_added(new, 512 * MIB)
        await bench.registry.close()

    asyncio.run(run())


def test_a_version_that_finishes_its_requests_takes_room() -> None:
    async def run() -> None:
        bench = Bench(memory_gib=2.25)
        with bench.registry.hold():
            await replace(bench, 512 * MIB, 512 * MIB)
            with fails("of which 1.94 are taken"):
                bench.room.check("calm", 512 * MIB)
        await bench.registry.drain()
        bench.room.check("calm", 512 * MIB)
        await bench.registry.close()

    asyncio.run(run())


def test_a_shadow_takes_room_until_it_ends() -> None:
    async def run() -> None:
        bench = Bench(memory_gib=2.25)
        shadow = backbone(Constant(2), version("calm", "b"))
        bench.room.note_added(shadow, 512 * MIB)
        bench.room.settle([shadow])
        assert bench.prompts.pop() // MIB == pytest.approx(320, abs=1)
        bench.registry.retire(shadow)
        await bench.registry.drain()
        bench.room.settle()
        assert bench.prompts.pop() // MIB == 512
        await bench.registry.close()

    asyncio.run(run())


def test_without_a_bound_it_must_be_free_on_the_machine_or_the_device() -> None:
    async def run() -> None:
        bench = Bench(memory_gib=None, free=GIB)
        bench.room.check("calm", GIB)
        with fails("calm needs 2 GiB", "the machine has 1 GiB free"):
            bench.room.check("calm", 2 * GIB)
        bench.room.check("calm", 2 * GIB, device_free=3 * GIB)
        with fails("the device has 3 GiB free"):
            bench.room.check("calm", 4 * GIB, device_free=3 * GIB)
        Bench(memory_gib=None, free=None).room.check("calm", 999 * GIB)  # where nothing can be read
        assert bench.prompts == []
        await bench.registry.close()

    asyncio.run(run())
