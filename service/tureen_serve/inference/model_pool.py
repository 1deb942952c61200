"""Models that are loaded when a request names them, and unloaded when their memory is needed.

A request is a user of each model that it names, from before the model is loaded until the reply is sent. A model with a
user is never unloaded. Of the others, the one that was used least recently goes first. Loads run one at a time, in a
thread, because transformers changes global state while it loads. All other code runs on the event loop, so nothing is
locked.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

from tureen.errors import TureenError, Unavailable, Unprocessable
from tureen_serve.inference.daemon_thread import run_in_daemon_thread
from tureen_serve.inference.pooled_model import (
    FailedLoads,
    ModelEvent,
    PooledModel,
    SourceLoader,
    check_size,
    choose_victims,
    copy_error,
    list_some,
    make_busy_error,
)
from tureen_serve.inference.registry import ServedBackbone
from tureen_serve.inference.shelf import Shelf
from tureen_serve.runtimes.catalogue import Backbone
from tureen_serve.runtimes.footprint import Footprint
from tureen_serve.runtimes.rewards_root import OfferedReward, Source

LOG = logging.getLogger(__name__)


class ModelPool:
    """Loads and unloads the models of a shelf.

    Args:
        shelf: the models that could be loaded.
        loader: loads them.
        start_lane: starts the lane of a loaded model.
        memory_bytes: the bound of their weights together; None for no bound.
        observe: called with every :class:`ModelEvent`.
        clock: seconds, for the time until a failed load is tried again.
    """

    def __init__(
        self,
        shelf: Shelf,
        loader: SourceLoader,
        start_lane: Callable[[Backbone], ServedBackbone],
        memory_bytes: int | None = None,
        observe: Callable[[ModelEvent], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shelf, self._loader, self._start_lane = shelf, loader, start_lane
        self._memory_bytes, self._observe = memory_bytes, observe
        self._models: dict[tuple[Path, str], PooledModel] = {}
        self._failed = FailedLoads(clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticks = count(1)
        self._turn = asyncio.Lock()
        self._closing = False

    @property
    def loaded(self) -> list[ServedBackbone]:
        """The models that are loaded now."""
        return [each.served for each in self._models.values() if each.served is not None]

    @property
    def offered(self) -> dict[str, Source]:
        """Name of a reward → its source: of the shelf, and of loaded models whose folder has disappeared."""
        gone = [each for each in self._models.values() if each.served and not self._shelf.has_replaced(each.source)]
        return {**{name: each.source for each in gone for name in each.source.names}, **self._shelf.sources}

    @property
    def refused(self) -> dict[str, str]:
        """Name of a reward in the rewards root that is not offered → why."""
        return dict(self._shelf.refused)

    def list_rewards(self) -> list[tuple[OfferedReward, str, bool]]:
        """List the rewards that are offered, each with its fingerprint and whether it is loaded now."""
        loaded = {key for key, each in self._models.items() if each.served is not None}
        return [
            (each, source.artifact.fingerprint(self._loader.dtype), source.key in loaded)
            for name, source in self.offered.items()
            for each in source.offers
            if each.name == name
        ]

    async def refresh(self) -> None:
        """Look for new and changed folders, and unload the models of replaced ones."""
        await self._shelf.refresh()
        self._failed.keep_only(each.folder for each in self._shelf.sources.values())
        self._discard([each for each in self._models.values() if each.idle and self._shelf.has_replaced(each.source)])

    async def take(self, wanted: Mapping[str, str], leases: ExitStack) -> list[ServedBackbone]:
        """Load the models of rewards, and keep them until ``leases`` is closed.

        Args:
            wanted: name of a reward → the field of the request that names it, for errors.

        Raises:
            Unprocessable: a reward is unknown or cannot be served, or the models are larger than the bound.
            Unavailable: a model cannot be loaded now.
        """
        found = await self.find(wanted)
        for name, param in wanted.items():
            if name not in found:
                reason = self._shelf.refused.get(name) or f"unknown reward {name!r}; known: {list_some(self.offered)}"
                raise Unprocessable(reason, param=param, code="unknown_reward")
        params = {each.key: wanted[name] for name, each in reversed(found.items())}
        distinct = list({each.key: each for each in found.values()}.values())
        if len(distinct) > 1 and self._memory_bytes is not None:
            sizes = [await self._measure_now(each) for each in distinct]
            check_size(distinct, sizes, self._memory_bytes, next(iter(wanted.values())))
        return [await self._lease(each, params[each.key], leases) for each in distinct]

    async def find(self, names: Collection[str]) -> dict[str, Source]:
        """Find the sources of those names that are offered. For a name that is not servable, folders are read first."""
        offered = self.offered
        if any(name not in offered or offered[name].folder in self._failed for name in names):
            await self.refresh()
            offered = self.offered
        elif self._shelf.is_due():
            self._start(self.refresh())
        return {name: offered[name] for name in names if name in offered}

    async def close(self) -> None:
        """Unload all models, whether or not requests still use them."""
        self._closing = True
        loads = [each.loading for each in self._models.values() if each.loading and not each.loading.done()]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        self._discard(list(self._models.values()))
        await asyncio.gather(*self._tasks)

    async def _lease(self, source: Source, param: str, leases: ExitStack) -> ServedBackbone:
        if self._closing:
            raise Unavailable("the server is shutting down; try another server", code="draining", retry_after=1)
        self._failed.check(source, param)
        model = self._models.get(source.key)
        if model is not None and model.idle and model.served and model.served.lane.failure:
            self._discard([model])
            model = None
        if model is None:
            model = self._models[source.key] = PooledModel(source)
            model.loading = asyncio.create_task(self._load(model))
            model.loading.add_done_callback(_take_error)
        assert model.loading is not None
        model.users += 1
        model.touched = next(self._ticks)
        leases.callback(self._leave, model)
        try:
            return await asyncio.shield(model.loading)
        except TureenError as error:
            raise copy_error(error, param) from None

    def _leave(self, model: PooledModel) -> None:
        model.users -= 1
        if model.idle and model.source.key in self._models and self._shelf.has_replaced(model.source):
            self._discard([model])

    async def _load(self, model: PooledModel) -> ServedBackbone:
        label = model.source.folder.name
        try:
            async with self._turn:
                await self._make_room(model)
                began = time.perf_counter()
                backbone = await run_in_daemon_thread(partial(self._loader.load, model.source))
                seconds = time.perf_counter() - began
                model.served = self._start_lane(backbone)
        except BaseException as error:
            self._models.pop(model.source.key, None)
            if isinstance(error, asyncio.CancelledError):
                raise Unavailable("the server is shutting down; try another server", code="draining") from None
            if isinstance(error, TureenError) and self._failed.note(model.source, error):
                self._observe(ModelEvent("failed"))
                LOG.warning("%s was not loaded: %s", label, error.message)
            raise
        self._observe(ModelEvent("loaded", seconds))
        LOG.info("%s was loaded in %.2f s: %s", label, seconds, model.served.description)
        return model.served

    async def _make_room(self, model: PooledModel) -> None:
        """Unload idle models until the new one fits.

        Raises:
            Unprocessable: it is larger than the bound.
            Unavailable: the other models are in use.
        """
        model.footprint = await run_in_daemon_thread(partial(self._loader.measure, model.source))
        bound = self._memory_bytes
        if bound is None:
            return
        check_size([model.source], [model.footprint], bound)
        others = [each for each in self._models.values() if each is not model]
        victims = choose_victims(others, model.footprint, bound)
        if victims is None:
            raise make_busy_error(model.source, model.footprint, bound)
        del others
        self._discard(victims)
        await asyncio.gather(*self._tasks)

    async def _measure_now(self, source: Source) -> Footprint:
        found = self._models.get(source.key)
        if found is not None and found.served is not None:
            return found.footprint
        async with self._turn:
            return await run_in_daemon_thread(partial(self._loader.measure, source))

    def _discard(self, victims: list[PooledModel]) -> None:
        """Take models out and unload them in a task. ``victims`` is emptied, so that it does not keep them."""
        for each in victims:
            self._models.pop(each.source.key, None)
        lanes = [each.served for each in victims if each.served is not None]
        victims.clear()
        if lanes:
            self._start(self._end(lanes))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, lanes: list[ServedBackbone]) -> None:
        while lanes:
            name = ", ".join(lanes[-1].versions)
            try:
                await lanes[-1].lane.close()
                LOG.info("%s was unloaded", name)
            except Exception:
                LOG.exception("%s was unloaded, but its lane could not be closed", name)
            lanes.pop()
            self._observe(ModelEvent("evicted"))
        gc.collect()  # these models were never frozen, so this is fast and frees what is in reference cycles


def _take_error(load: asyncio.Task[ServedBackbone]) -> None:
    """Mark the error of a load as seen, since all who waited for it may have left."""
    if not load.cancelled():
        load.exception()
