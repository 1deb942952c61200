"""The models that are loaded, and how one makes room for another within a bound of memory.

A model with a user is never unloaded. Of the others, the one that was used least recently goes first. If that makes too
little room, the model in use that was loaded first takes no more requests, and is unloaded when its last user has left.
"""

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress

from tureen_serve.inference.pooled_model import (
    Key,
    ModelEvent,
    PooledModel,
    check_size,
    choose_victims,
    make_busy_error,
)
from tureen_serve.inference.registry import ServedBackbone
from tureen_serve.inference.waiting_request import WaitingRequest
from tureen_serve.runtimes.footprint import Footprint
from tureen_serve.runtimes.root_folder import Source

LOG = logging.getLogger(__name__)
ROOM_SECONDS = 30.0
STAY_SECONDS = 10.0


class ModelMemory:
    """Holds the loaded models.

    Args:
        memory_bytes: the bound of their weights together; None for no bound.
        room_seconds: how long a load waits until the requests end that use the memory which it needs.
        observe: called with every :class:`ModelEvent` of a model that was unloaded.

    Attributes:
        models: all that are loaded, by key.
    """

    def __init__(
        self, memory_bytes: int | None, room_seconds: float, observe: Callable[[ModelEvent], None] = lambda _: None
    ) -> None:
        self.models: dict[Key, PooledModel] = {}
        self._memory_bytes, self._room_seconds, self._observe = memory_bytes, room_seconds, observe
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def find_open(self, key: Key) -> PooledModel | None:
        """Find a model that takes requests. An idle one whose lane has died is unloaded."""
        model = self.models.get(key)
        if model is not None and model.idle and model.served.lane.failure:
            self.discard([model])
            return None
        return None if model is None or model.leaving else model

    def add(self, model: PooledModel, seconds: float) -> None:
        """Add a model that was loaded in ``seconds``. For as long as that, at most :data:`STAY_SECONDS`, it stays."""
        model.stays_until = asyncio.get_running_loop().time() + min(seconds, STAY_SECONDS)
        self.models[model.source.key] = model

    def note_change(self) -> None:
        """Let a load look again whether there is room: a request has ended or left."""
        self._changed.set()

    async def make_room(self, source: Source, needed: Footprint, request: WaitingRequest) -> bool:
        """Unload models until a new one fits. Those that the request needs stay.

        Returns:
            Whether there is room. There is none if the request has left meanwhile.

        Raises:
            Unprocessable: the model is larger than the bound.
            Unavailable: the requests that use the other models have not ended in time.
        """
        bound = self._memory_bytes
        if bound is None:
            return True
        check_size([source], [needed], bound)
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._room_seconds
        try:
            while not request.done:
                self._changed.clear()
                now = loop.time()
                victims = choose_victims(self.models.values(), needed, bound, request.sources, now)
                if victims is not None and all(each.idle for each in victims):
                    await self._unload(victims)
                    return True
                for each in victims or ():
                    each.leaving = True
                if now >= ends:
                    raise make_busy_error(source, needed, bound)
                await self._wait_for_change(ends, now)
            return False
        finally:
            self._reopen(loop.time())

    async def _wait_for_change(self, ends: float, now: float) -> None:
        """Wait until a request has ended or left, or a model in use has stayed long enough."""
        stays = [each.stays_until for each in self.models.values() if each.stays_until > now]
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), min([ends, *stays]) - now)

    def _reopen(self, now: float) -> None:
        """Let the models take requests again that were not unloaded. They stay, so that these are answered."""
        for each in self.models.values():
            if each.leaving:
                each.leaving, each.stays_until = False, now + STAY_SECONDS

    async def _unload(self, victims: list[PooledModel]) -> None:
        """Unload models, and wait until their memory is free."""
        self.discard(victims)
        if self._tasks:
            await asyncio.wait(self._tasks)  # unlike gather, it does not cancel them if this load is cancelled

    def discard(self, victims: list[PooledModel]) -> None:
        """Take models out and unload them in a task. ``victims`` is emptied, so that it does not keep them."""
        for each in victims:
            self.models.pop(each.source.key, None)
        lanes = [(each.source.folder.name, each.served) for each in victims]
        victims.clear()
        if lanes:
            self.start(self._end(lanes))

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Run work in a task that :meth:`close` waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Unload all models, whether or not requests still use them."""
        self.discard(list(self.models.values()))
        await asyncio.gather(*self._tasks)

    async def _end(self, lanes: list[tuple[str, ServedBackbone]]) -> None:
        while lanes:
            name = lanes[-1][0]
            try:
                await lanes[-1][1].lane.close()
                LOG.info("%s was unloaded", name)
            except Exception:
                LOG.exception("%s was unloaded, but its lane could not be closed", name)
            lanes.pop()
            self._observe(ModelEvent("evicted"))
        gc.collect()  # these models were never frozen, so this is fast and frees what is in reference cycles
