"""The reward models that are served, and how others take their place in one step.

What is new is loaded beside the old and scores its probes. Then all of it takes over in one step of the registry, and
requests in flight finish on the models that they started with. If anything fails, nothing has changed. The blocking
parts run in a thread, in turns with the loads on demand. All other code runs on the event loop, so nothing is locked.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from tureen.errors import Conflict
from tureen_serve.changes.loader_call import call_in_turn
from tureen_serve.changes.room import Room
from tureen_serve.inference.engine import Engine, Reward
from tureen_serve.inference.registry import Served, ServedBackbone, ServedFamily
from tureen_serve.reward_settings import RewardEntry
from tureen_serve.runtimes.artifacts import check_reward_names
from tureen_serve.runtimes.catalogue import Backbone, OpenedReward
from tureen_serve.runtimes.late_loader import Group, LateLoader
from tureen_serve.runtimes.sources import LoadError

LOG = logging.getLogger(__name__)
T = TypeVar("T")
CheckAliases = Callable[[Mapping[str, str], Mapping[str, Reward]], str | None]
StartLane = Callable[[Backbone], ServedBackbone]


class ServedRewards:
    """The reward models of a server's configuration. The caller makes one change at a time.

    Args:
        engine: the server's.
        loader: opens and loads.
        start_lane: starts the lane of a loaded model.
        room: knows what fits.
        aliases: those of the server, which a change may replace.
        check_aliases: says which alias would be wrong with other rewards, or None.

    Attributes:
        opened: what is served, in the order of the configuration.
    """

    def __init__(
        self,
        engine: Engine,
        loader: LateLoader,
        start_lane: StartLane,
        room: Room,
        aliases: dict[str, str],
        check_aliases: CheckAliases,
    ) -> None:
        self._engine, self._loader, self._start_lane, self._room = engine, loader, start_lane, room
        self._aliases, self._check_aliases = aliases, check_aliases
        self._settling: set[asyncio.Task[None]] = set()
        self._beside: set[Served] = set()
        self.opened: Sequence[OpenedReward] = engine.start.opened
        owners = {name: each for each in self.opened for name in each.names}
        backbones = [each for each in engine.registry.current.served if isinstance(each, ServedBackbone)]
        self._groups: Mapping[Group, ServedBackbone] = {
            tuple(dict.fromkeys(owners[reward.name] for reward in each.rewards)): each for each in backbones
        }

    def find(self, name: str) -> OpenedReward | None:
        """Find what a reward was loaded from; None if no reward of the configuration has this name."""
        return next((each for each in self.opened if name in each.names), None)

    async def open(self, entry: RewardEntry) -> OpenedReward:
        """Open and verify what an entry names.

        Raises:
            Unprocessable, Unavailable: as :meth:`LateLoader.open`.
            Conflict: there is no memory to score a plain model by its own library.
        """
        needed = await self._call(partial(self._loader.measure_opening, entry))
        if not needed:
            return await self._call(partial(self._loader.open, entry))
        self._room.check("the model's own library", needed, lanes=0)
        try:
            return await self._call(partial(self._loader.open, entry))
        finally:
            self._settle_later()

    async def reopen(self, entry: RewardEntry) -> OpenedReward:
        """Open an entry of the configuration. If it is served already with the same scores, return what is served.

        Raises:
            Unprocessable, Unavailable, Conflict: as :meth:`open`.
        """
        known = next((each for each in self.opened if each.entry == entry), None)
        if known is None:
            return await self.open(entry)
        if not await self._call(partial(self._loader.has_changed, known)):
            return known
        opened = await self.open(entry)
        return known if (known.fingerprint, known.names) == (opened.fingerprint, opened.names) else opened

    async def serve(
        self,
        target: Sequence[OpenedReward],
        aliases: Mapping[str, str] | None = None,
        ready: Mapping[Group, ServedBackbone] | None = None,
    ) -> None:
        """Serve exactly these reward models from now on.

        Args:
            aliases: replace those of the server; None keeps them.
            ready: models that are loaded already.

        Raises:
            Unprocessable, Unavailable: one cannot be loaded.
            Conflict: names clash, an alias would be wrong, there is no room, or the runtime cannot change a model.
        """
        names = dict(self._aliases if aliases is None else aliases)
        groups = self._loader.make_groups(target)
        known = {**(ready or {}), **self._groups}
        gone = [group for group in self._groups if group not in groups]
        new = [group for group in groups if group not in known]
        self._check(target, names, [*gone, *new])
        sizes = {group: await self._call(partial(self._loader.measure, group)) for group in (*gone, *new)}
        loaded = await self._load(new, sizes)
        try:
            self._check(target, names, [])  # again: rewards on demand may have come meanwhile
        except BaseException:
            self._retire(loaded)
            raise
        for group in gone:
            self._room.note_ended(self._groups[group], sizes[group])
        self._take_over(target, {group: {**known, **loaded}[group] for group in groups}, names)

    async def load_beside(self, opened: OpenedReward) -> ServedBackbone:
        """Load a model that answers no requests.

        Raises:
            Unprocessable, Unavailable, Conflict: as :meth:`serve`.
        """
        group = (opened,)
        self._check_obstacles([group])
        size = await self._call(partial(self._loader.measure, group))
        served = (await self._load([group], {group: size}))[group]
        served.lane.name = f"{opened.artifact.name}-shadow"
        self._beside.add(served)
        return served

    def retire(self, served: ServedBackbone) -> None:
        """Free a model of :meth:`load_beside`, unless it is served now."""
        self._beside.discard(served)
        if served not in self._engine.registry.current.served:
            self._retire({(): served})

    async def close(self) -> None:
        """Wait until what was taken out is freed."""
        await asyncio.gather(*self._settling)

    def _check(self, target: Sequence[OpenedReward], aliases: Mapping[str, str], changed: Sequence[Group]) -> None:
        """Check the names and aliases of what is to be served, and that the runtimes can do it."""
        try:
            check_reward_names(target)
        except LoadError as error:
            raise Conflict(str(error), param="name", code="name_taken") from error
        rewards = {reward.name: reward for each in target for reward in each.rewards}
        pool = self._engine.pool
        offered = {} if pool is None else pool.offered
        artifacts = {each.manifest.name for each in offered.values()}
        taken = [each for each in rewards if each in offered]
        taken += [each.artifact.name for each in target if each.artifact.name in artifacts]
        if taken:
            message = f"a model in the rewards root is called {taken[0]!r} too; leave one out"
            raise Conflict(message, param="name", code="name_taken")
        if wrong := self._check_aliases(aliases, rewards):
            raise Conflict(wrong, param="name", code="alias_broken")
        self._check_obstacles(changed)

    def _check_obstacles(self, groups: Sequence[Group]) -> None:
        for each in (each for group in groups for each in group):
            if obstacle := self._loader.find_obstacle(each):
                message = f"{each.artifact.name} cannot be changed while the server runs: {obstacle}"
                raise Conflict(message, param="name", code="model_fixed")

    async def _load(self, groups: Sequence[Group], sizes: Mapping[Group, int]) -> dict[Group, ServedBackbone]:
        """Load groups, and start their lanes. If one fails, all are freed."""
        if groups:
            what = " and ".join(each.artifact.name for group in groups for each in group)
            needed = sum(sizes[group] for group in groups)
            self._room.check(what, needed, len(groups), self._loader.find_free_bytes())
        loaded: dict[Group, ServedBackbone] = {}
        try:
            for group in groups:
                backbone = await self._call(partial(self._loader.load, group), Backbone.close)
                loaded[group] = self._start_lane(backbone)
                self._room.note_added(loaded[group], sizes[group])
        except BaseException:
            self._retire(loaded)
            raise
        return loaded

    def _take_over(
        self, target: Sequence[OpenedReward], groups: Mapping[Group, ServedBackbone], aliases: Mapping[str, str]
    ) -> None:
        """Change everything in one step: nothing here waits."""
        registry, pool = self._engine.registry, self._engine.pool
        families = [each for each in registry.current.served if isinstance(each, ServedFamily)]
        registry.change([*groups.values(), *families])
        for group, served in groups.items():
            served.lane.name = self._loader.name_lane(group)
            for old in self._groups.values():
                if not old.versions.keys().isdisjoint(served.versions):
                    served.lane.speed.take_over(old.lane.speed)
        self.opened, self._groups = tuple(target), groups
        self._aliases.clear()
        self._aliases.update(aliases)
        if pool is not None:
            artifacts = {each.artifact.name for each in target}
            pool.reserve({*self._engine.rewards, *aliases}, artifacts, [each.artifact.folder for each in target])
        self._settle_later()

    def _retire(self, loaded: Mapping[Group, ServedBackbone]) -> None:
        for served in loaded.values():
            self._engine.registry.retire(served)
        self._settle_later()

    def _settle_later(self) -> None:
        """Give back the room of what was taken out when it is closed."""

        async def settle() -> None:
            await self._engine.registry.drain()
            self._room.settle(self._beside)

        task = asyncio.get_running_loop().create_task(settle())
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _call(self, work: Callable[[], T], discard: Callable[[T], None] = lambda _: None) -> T:
        return await call_in_turn(self._engine.turn, work, discard)
