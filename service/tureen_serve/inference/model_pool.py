"""Models that are loaded when a request names them, and unloaded when their memory is needed.

A request waits until all models that it names are loaded. Then it is a user of each until its reply is sent. A model
with a user is never unloaded. Of the others, the one that was used least recently goes first. If that makes too little
room, the model that was loaded first takes no more requests: they wait behind the load that needs the room, and its
last users finish. So models that do not fit together have turns. Loads run one at a time, in a thread, because
transformers changes global state while it loads. All other code runs on the event loop, so nothing is locked.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

from tureen.errors import TureenError, Unavailable, Unprocessable
from tureen_serve.inference.daemon_thread import run_in_daemon_thread
from tureen_serve.inference.model_memory import ROOM_SECONDS, ModelMemory
from tureen_serve.inference.pooled_model import (
    FailedLoads,
    Key,
    ModelEvent,
    PooledModel,
    SourceLoader,
    check_size,
    list_some,
)
from tureen_serve.inference.registry import ServedBackbone
from tureen_serve.inference.shelf import Shelf
from tureen_serve.inference.timed_lock import TimedLock
from tureen_serve.inference.waiting_request import WaitingRequest
from tureen_serve.runtimes.catalogue import Backbone
from tureen_serve.runtimes.footprint import Footprint
from tureen_serve.runtimes.root_folder import OfferedReward, Source

LOG = logging.getLogger(__name__)
T = TypeVar("T")


class ModelPool:
    """Loads and unloads the models of a shelf.

    Args:
        shelf: the models that could be loaded.
        loader: loads them.
        start_lane: starts the lane of a loaded model.
        memory_bytes: the bound of their weights together; None for no bound.
        observe: called with every :class:`ModelEvent`.
        clock: seconds, for the time until a failed load is tried again.
        room_seconds: how long a load waits until the requests end that use the memory which it needs.

    Attributes:
        turn: held while the loader works; all other loads of the process hold it too.
    """

    def __init__(
        self,
        shelf: Shelf,
        loader: SourceLoader,
        start_lane: Callable[[Backbone], ServedBackbone],
        memory_bytes: int | None = None,
        observe: Callable[[ModelEvent], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        room_seconds: float = ROOM_SECONDS,
    ) -> None:
        self._shelf, self._loader, self._start_lane, self._observe = shelf, loader, start_lane, observe
        self._memory_bytes = memory_bytes
        self._memory = ModelMemory(memory_bytes, room_seconds, observe)
        self._waiting: list[WaitingRequest] = []
        self._failed = FailedLoads(clock)
        self._serving: asyncio.Task[None] | None = None
        self._ticks = count(1)
        self.turn = TimedLock()
        self._closing = False

    @property
    def loaded(self) -> list[ServedBackbone]:
        """The models that are loaded now."""
        return [each.served for each in self._memory.models.values()]

    @property
    def offered(self) -> dict[str, Source]:
        """Name of a reward → its source: of the shelf, and of loaded models whose folder has disappeared."""
        gone = [each for each in self._memory.models.values() if not self._shelf.has_replaced(each.source)]
        return {**{name: each.source for each in gone for name in each.source.names}, **self._shelf.sources}

    @property
    def refused(self) -> dict[str, str]:
        """Name of a reward in the rewards root that is not offered → why."""
        return dict(self._shelf.refused)

    def list_rewards(self) -> list[tuple[OfferedReward, str | None, bool]]:
        """List the rewards that are offered, each with its fingerprint and whether it is loaded now.

        The fingerprint of a plain model is None while it is not loaded.
        """
        rows: list[tuple[OfferedReward, str | None, bool]] = []
        for name, source in self.offered.items():
            model = self._memory.models.get(source.key)
            if model is None:
                fingerprint = source.fingerprint(self._loader.dtype)
                rows += [(each, fingerprint, False) for each in source.offers if each.name == name]
            else:
                found = [each for each in model.served.rewards if each.name == name]
                rows += [
                    (OfferedReward(name, each.artifact, each.calibration), each.fingerprint, True) for each in found
                ]
        return rows

    def reserve(self, rewards: Collection[str], artifacts: Collection[str], folders: Collection[Path]) -> None:
        """Keep names and folders for what the server serves otherwise."""
        self._shelf.reserve(rewards, artifacts, folders)

    async def refresh(self) -> None:
        """Look for new and changed folders, and unload the models of replaced ones."""
        await self._shelf.refresh()
        self._failed.keep_only(each.folder for each in self._shelf.sources.values())
        replaced = [each for each in self._memory.models.values() if self._shelf.has_replaced(each.source)]
        self._memory.discard([each for each in replaced if each.idle])

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
        sources = {each.key: each for each in found.values()}
        params = {each.key: wanted[name] for name, each in reversed(found.items())}
        if len(sources) > 1 and self._memory_bytes is not None:
            sizes = [await self._measure(each) for each in sources.values()]
            check_size(list(sources.values()), sizes, self._memory_bytes, next(iter(wanted.values())))
        return await self._admit(sources, params, leases)

    async def find(self, names: Collection[str]) -> dict[str, Source]:
        """Find the sources of those names that are offered. For a name that is not servable, folders are read first."""
        offered = self.offered
        if any(name not in offered or offered[name].folder in self._failed for name in names):
            await self.refresh()
            offered = self.offered
        elif self._shelf.is_due():
            self._memory.start(self.refresh())
        return {name: offered[name] for name in names if name in offered}

    async def close(self) -> None:
        """Unload all models, whether or not requests still use them. Requests that wait are refused."""
        self._closing = True
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])
        for request in self._waiting:
            request.refuse(_make_closing_error())
        await self._memory.close()

    async def _admit(
        self, sources: Mapping[Key, Source], params: Mapping[Key, str], leases: ExitStack
    ) -> list[ServedBackbone]:
        """Wait until models are loaded, and make the request a user of each."""
        if self._closing:
            raise _make_closing_error()
        for key, source in sources.items():
            self._failed.check(source, params[key])
        request = WaitingRequest(sources, params, leases)
        self._waiting.append(request)
        if self._grant_waiting() and (self._serving is None or self._serving.done()):
            self._serving = asyncio.create_task(self._serve_waiting())
        try:
            return await request.wait()
        finally:
            self._memory.note_change()

    def _grant_waiting(self) -> WaitingRequest | None:
        """Give each request its models if all of them take requests. Returns the first request that waits still."""
        waiting, self._waiting = [each for each in self._waiting if not each.done], []
        for request in waiting:
            found = [self._memory.find_open(key) for key in request.sources]
            models = [each for each in found if each is not None]
            if len(models) < len(found):
                self._waiting.append(request)
                continue
            for model in models:
                model.touched = next(self._ticks)
            request.grant(models, self._leave)
        return next(iter(self._waiting), None)

    def _leave(self, model: PooledModel) -> None:
        model.users -= 1
        if model.idle and model.source.key in self._memory.models and self._shelf.has_replaced(model.source):
            self._memory.discard([model])
        self._memory.note_change()

    async def _serve_waiting(self) -> None:
        """Load the models that requests wait for, one after another, those of the first request first."""
        while request := self._grant_waiting():
            source = next(each for key, each in request.sources.items() if key not in self._memory.models)
            try:
                await self._load(source, request)
            except Exception as error:
                self._refuse_waiting(source, error)

    async def _load(self, source: Source, request: WaitingRequest) -> None:
        """Make room for a model and load it. It is not loaded if the request has left before there is room."""
        footprint = await self._measure(source)
        if not await self._memory.make_room(source, footprint, request):
            return
        self._grant_waiting()
        clock = asyncio.get_running_loop().time
        began = clock()
        backbone = await self._call(partial(self._loader.load, source), Backbone.close)
        seconds = clock() - began
        model = PooledModel(source, footprint, self._start_lane(backbone), next(self._ticks))
        self._memory.add(model, seconds)
        self._observe(ModelEvent("loaded", seconds))
        LOG.info("%s was loaded in %.2f s: %s", source.folder.name, seconds, model.served.description)

    def _refuse_waiting(self, source: Source, error: Exception) -> None:
        """Refuse all requests that wait for a source."""
        if isinstance(error, TureenError) and self._failed.note(source, error):
            self._observe(ModelEvent("failed"))
            LOG.warning("%s was not loaded: %s", source.folder.name, error.message)
        for request in self._waiting:
            if source.key in request.sources:
                request.refuse(error, source.key)

    async def _measure(self, source: Source) -> Footprint:
        found = self._memory.models.get(source.key)
        return await self._call(partial(self._loader.measure, source)) if found is None else found.footprint

    async def _call(self, work: Callable[[], T], discard: Callable[[T], None] = lambda _: None) -> T:
        """Call the loader, which does one thing at a time."""
        async with self.turn:
            return await run_in_daemon_thread(work, discard)


def _make_closing_error() -> Unavailable:
    return Unavailable("the server is shutting down; try another server", code="draining", retry_after=1)
