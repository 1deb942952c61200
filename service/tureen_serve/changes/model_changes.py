"""The changes that operators ask for while the server runs: load, unload, shadow and promote a reward model.

One change of a reward runs at a time; those of others wait for it. A caller who leaves, or whose deadline passes, gives
a change up, and so does the end of the server: then the old models stay.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tureen.errors import Conflict, NotFound, Unprocessable
from tureen.wire import LoadRequest, ModelChange, ShadowRequest
from tureen_core.artifact import MANIFEST
from tureen_serve.changes.allowed_folders import find_allowed_folder
from tureen_serve.changes.change_turns import ChangeTurns, Work
from tureen_serve.changes.likeness import check_likeness, name_reward
from tureen_serve.changes.served_rewards import ServedRewards
from tureen_serve.changes.shadow import Shadow
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.pooled_model import list_some
from tureen_serve.inference.readers import Outcome
from tureen_serve.inference.registry import Models, ServedBackbone
from tureen_serve.inference.rendering import ScoreInput
from tureen_serve.runtimes.catalogue import OpenedReward
from tureen_serve.runtimes.late_loader import Group
from tureen_serve.settings import RewardEntry
from tureen_serve.telemetry import Metrics

T = TypeVar("T")


class ModelChanges:
    """Changes the rewards of a server.

    Args:
        engine: the server's.
        served: what it serves.
        roots: the folders below which a request may name a model.
        metrics: count changes and shadows.
    """

    def __init__(self, engine: Engine, served: ServedRewards, roots: Sequence[Path], metrics: Metrics) -> None:
        self._engine, self._served, self._roots, self._metrics = engine, served, roots, metrics
        self._turns = ChangeTurns(metrics)
        self._shadows: list[Shadow] = []
        engine.witness = self._show_shadows

    async def load(self, name: str, asked: LoadRequest) -> ModelChange:
        """Load another version of a reward, or a new reward, and serve it from then on.

        Raises:
            Unprocessable, Unavailable, NotFound, Conflict: the old stays; the code says why.
        """
        return await self._change("load", name, lambda: self._load(name, asked))

    async def unload(self, name: str) -> ModelChange:
        """Stop serving a reward, and all rewards of the same artifact.

        Raises:
            Unprocessable, Unavailable, NotFound, Conflict: it stays; the code says why.
        """
        return await self._change("unload", name, lambda: self._unload(name))

    async def begin_shadow(self, name: str, asked: ShadowRequest) -> Shadow:
        """Let another version of a reward score a share of its texts. It takes the place of an earlier shadow.

        Raises:
            Unprocessable, Unavailable, NotFound, Conflict: there is no such shadow; the code says why.
        """
        return await self._change("shadow", name, lambda: self._begin_shadow(name, asked))

    async def end_shadow(self, name: str) -> Shadow:
        """End the shadow of a reward.

        Raises:
            NotFound: it has none.
        """
        return await self._change("shadow", name, lambda: self._end_named(name))

    async def reread(self, entries: Sequence[RewardEntry], aliases: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Serve what a configuration names, and nothing else. What is served already with the same scores stays.

        Returns:
            The names of the artifacts that were loaded, and of those that were unloaded.

        Raises:
            Unprocessable, Unavailable, Conflict: nothing has changed; the code says why.
        """
        return await self._change("reread", "", lambda: self._reread(entries, aliases))

    def require_shadow(self, name: str) -> Shadow:
        """Find the shadow of a reward.

        Raises:
            NotFound: it has none.
        """
        found = next((each for each in self._shadows if name in each.opened.names), None)
        if found is None:
            raise NotFound(f"{name!r} has no shadow; begin one with POST", param="name", code="no_shadow")
        return found

    def stop(self) -> None:
        """Give up the change that runs, and refuse others: the server ends."""
        self._turns.stop()

    async def close(self) -> None:
        """End the shadows."""
        self.stop()
        await self._turns.wait()
        for shadow in tuple(self._shadows):
            await self._end_shadow(shadow)
        await self._served.close()

    # ----------------------------------------------------------------------- the changes, each in its turn

    async def _load(self, name: str, asked: LoadRequest) -> ModelChange:
        began = time.monotonic()
        old = self._served.find(name)
        shadow = self.require_shadow(name) if asked.promote else None
        if shadow is not None and (asked.path is not None or asked.rename):
            raise Unprocessable("a shadow is promoted as it is; leave `path` and `rename` out", param="promote")
        new = await self._open(name, asked.path, asked.rename) if shadow is None else shadow.opened
        others = [new if each is old else each for each in self._served.opened]
        ready: dict[Group, ServedBackbone] = {(each.opened,): each.served for each in self._shadows}
        await self._served.serve(others if old else [*others, new], ready=ready)
        if shadow is not None:
            await self._end_shadow(shadow)
        return ModelChange(
            id=name,
            action="promoted" if asked.promote else "loaded",
            rewards=list(new.names),
            version=new.artifact.manifest.version or None,
            fingerprint=new.fingerprint,
            replaced=old.fingerprint if old else None,
            seconds=time.monotonic() - began,
        )

    async def _unload(self, name: str) -> ModelChange:
        old = self._require(name)
        await self._served.serve([each for each in self._served.opened if each is not old])
        for shadow in tuple(self._shadows):
            if not set(shadow.opened.names).isdisjoint(old.names):
                await self._end_shadow(shadow)
        return ModelChange(id=name, action="unloaded", rewards=list(old.names), replaced=old.fingerprint)

    async def _begin_shadow(self, name: str, asked: ShadowRequest) -> Shadow:
        old = self._require(name)
        if next(each for each in old.rewards if each.name == name).input != "conversation":
            message = f"{name} does not score whole answers, and only such rewards have shadows; load it without one"
            raise Unprocessable(message, param="name", code="wrong_input")
        new = await self._open(name, asked.path, asked.rename)
        for earlier in tuple(self._shadows):
            if not set(earlier.opened.names).isdisjoint(new.names):
                await self._end_shadow(earlier)
        served = await self._served.load_beside(new)
        shadow = Shadow(new, served, asked.share, self._engine, self._metrics.shadows)
        self._shadows.append(shadow)
        return shadow

    async def _end_named(self, name: str) -> Shadow:
        shadow = self.require_shadow(name)
        await self._end_shadow(shadow)
        return shadow

    async def _end_shadow(self, shadow: Shadow) -> None:
        self._shadows.remove(shadow)
        await shadow.close()
        self._served.retire(shadow.served)

    async def _reread(self, entries: Sequence[RewardEntry], aliases: Mapping[str, str]) -> tuple[list[str], list[str]]:
        before = self._served.opened
        target = [await self._served.reopen(each) for each in entries]
        await self._served.serve(target, aliases)
        for shadow in tuple(self._shadows):
            if not all(map(self._served.find, shadow.opened.names)):
                await self._end_shadow(shadow)
        return (
            [each.artifact.name for each in target if each not in before],
            [each.artifact.name for each in before if each not in target],
        )

    # ----------------------------------------------------------------------- their parts

    async def _open(self, name: str, path: str | None, rename: bool) -> OpenedReward:
        """Open the version of a reward that a request names, and check that it can take the reward's place."""
        old = self._served.find(name)
        if path is None:
            opened = await self._served.open(self._require(name).entry)
        else:
            folder = find_allowed_folder(path, self._roots)
            options = old.entry if old and not (folder / MANIFEST).exists() else RewardEntry(path=folder)
            opened = await self._served.open(options.model_copy(update={"path": str(folder), "tried": None}))
        opened = name_reward(opened, name, rename)
        if old is not None:
            check_likeness(old, opened)
        return opened

    def _require(self, name: str) -> OpenedReward:
        found = self._served.find(name)
        if found is None:
            message = f"no reward is called {name!r}; served: {list_some(self._engine.rewards)}"
            raise NotFound(message, param="name", code="model_not_found")
        return found

    def _check_kind(self, name: str) -> None:
        """Refuse what is no reward of the configuration."""
        if name in self._engine.families:
            message = f"{name} is a policy, and only rewards can be changed while the server runs; start it again"
            raise Conflict(message, param="name", code="model_fixed")
        if self._engine.pool is not None and name in self._engine.pool.offered:
            message = f"{name} is a reward of the rewards root: change its folder there, and it is read again"
            raise Conflict(message, param="name", code="model_fixed")

    async def _change(self, action: str, name: str, work: Work[T]) -> T:
        async def check_and_work() -> T:
            self._check_kind(name)
            return await work()

        return await self._turns.make(action, name, check_and_work)

    def _show_shadows(
        self,
        models: Models,
        given: Sequence[ScoreInput],
        objectives: Sequence[str],
        truncate: bool,
        outcomes: Sequence[Sequence[Outcome]],
    ) -> None:
        """Show the shadows a call that was answered."""
        for shadow in self._shadows:
            shadow.take(models, given, objectives, truncate, outcomes)
