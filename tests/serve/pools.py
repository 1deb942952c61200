"""A pool over a root of models that need no weights: its loads can be stopped, fail, and be counted."""

import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import tiny
from serve import counting
from serve.test_inference_registry import Constant
from waiting import PATIENCE, run_on_clock, wait_until

from tureen.errors import TureenError
from tureen_serve.inference.model_pool import ModelPool
from tureen_serve.inference.opened_lanes import open_backbone
from tureen_serve.inference.pooled_model import ModelEvent
from tureen_serve.inference.shelf import SCAN_SECONDS, Shelf
from tureen_serve.runtimes.catalogue import Backbone, Reward
from tureen_serve.runtimes.footprint import Footprint
from tureen_serve.runtimes.root_folder import Source

NAMES = ("calm", "dry", "funny", "warm")


def make_root(folder: Path) -> Path:
    """Write an artifact for each of :data:`NAMES`, and ``many`` with the rewards facts and tone, in ``folder/root``."""
    base = tiny.base(folder / "base")
    for seed, name in enumerate(NAMES):
        tiny.reward(folder / "root" / name, base, name, seed)
    tiny.reward(folder / "root/many", base, "many", 9, objectives=["facts", "tone"])
    return folder / "root"


class Loader:
    """Loads scorers that need no model.

    Attributes:
        sizes: folder → footprint; one byte by default.
        gates: folder → an event that its load waits for.
        errors: folder → what its load raises.
        loads: the folders that were loaded, in order.
        scorers: folder → its last scorer.
    """

    dtype = "float32"

    def __init__(self) -> None:
        self.sizes: dict[str, Footprint] = {}
        self.gates: dict[str, threading.Event] = {}
        self.errors: dict[str, Exception] = {}
        self.loads: list[str] = []
        self.scorers: dict[str, Constant] = {}
        self.running = self.most_running = 0

    def measure(self, source: Source) -> Footprint:
        return self.sizes.get(source.folder.name, Footprint(1))

    def load(self, source: Source) -> Backbone:
        name = source.folder.name
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        self.loads.append(name)
        try:
            assert self.gates.get(name, OPEN).wait(20)
            if name in self.errors:
                raise self.errors[name]
        finally:
            self.running -= 1
        scorer = self.scorers[name] = Constant(len(self.loads))
        rewards = tuple(
            Reward(each.name, each.artifact, 0, each.calibration, source.state, counting.RENDERER)
            for each in source.offers
        )
        return Backbone(name, scorer, rewards)


OPEN = threading.Event()
OPEN.set()


class Bench:
    """A pool over a root, its loader, its clock and what it told."""

    def __init__(self, root: Path, bound: int | None, room_seconds: float = PATIENCE) -> None:
        self.root, self.now = root, 100.0
        self.loader = Loader()
        self.events: list[ModelEvent] = []
        shelf = Shelf(root, clock=lambda: self.now)
        self.pool = ModelPool(
            shelf, self.loader, open_backbone, bound, self.events.append, lambda: self.now, room_seconds
        )

    @property
    def loaded(self) -> set[str]:
        return {name for each in self.pool.loaded for name in each.versions}

    @property
    def leaving(self) -> set[str]:
        """The rewards of models that take no more requests."""
        models = self.pool._memory.models.values()
        return {name for each in models if each.leaving for name in each.source.names}

    @property
    def users(self) -> dict[str, int]:
        """First reward of each loaded model → the number of requests that hold it."""
        return {each.source.names[0]: each.users for each in self.pool._memory.models.values()}

    @property
    def waiting(self) -> list[str]:
        """The first reward of each request that waits, the first request first."""
        return [next(iter(each.sources.values())).names[0] for each in self.pool._waiting if not each.done]

    @property
    def told(self) -> Counter[str]:
        return Counter(each.kind for each in self.events)

    async def use(self, *names: str) -> list[str]:
        """Take models and give them back; the fingerprints of what was served."""
        with ExitStack() as leases:
            return [version for each in await self.take(leases, *names) for version in each.versions.values()]

    async def take(self, leases: ExitStack, *names: str) -> Any:
        return await self.pool.take({name: f"rewards.{name}" for name in names}, leases)

    async def fault(self, *names: str) -> TureenError:
        with pytest.raises(TureenError) as caught:
            await self.use(*names)
        return caught.value

    async def look(self) -> None:
        self.now += SCAN_SECONDS
        await self.pool.refresh()

    async def settle(self) -> None:
        """Wait until nothing is being unloaded."""
        await wait_until(lambda: not self.pool._memory._tasks)


def run(
    root: Path,
    work: Callable[[Bench], Coroutine[Any, Any, None]],
    bound: int | None = None,
    room_seconds: float = PATIENCE,
) -> None:
    async def whole() -> None:
        bench = Bench(root, bound, room_seconds)
        try:
            await work(bench)
        finally:
            await bench.pool.close()
        assert bench.pool.loaded == []
        await wait_until(lambda: all(scorer.closed for scorer in bench.loader.scorers.values()))

    run_on_clock(whole())
