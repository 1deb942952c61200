"""The registry of served models: name → version → lane. Models can be added, swapped and removed while requests run.

A change is one atomic step. A request keeps the models that it found when it started. A removed lane is closed after
the last request that may use it has ended. The version of a model is its fingerprint. All of this runs on the event
loop, so nothing is locked.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tureen_serve.inference.generator_lane import GeneratorLane
from tureen_serve.inference.heap import HeapKeeper
from tureen_serve.inference.scorer_lane import ScorerLane
from tureen_serve.inference.stepper_lane import StepperLane
from tureen_serve.inference.upstream_lane import UpstreamLane
from tureen_serve.runtimes.catalogue import Family, Reward

LOG = logging.getLogger(__name__)

TextLane = StepperLane | GeneratorLane | UpstreamLane
AnyLane = ScorerLane | TextLane


@dataclass(frozen=True, eq=False)
class ServedBackbone:
    """A lane that scores, and its rewards. ``description`` says how it computes, for the log."""

    lane: ScorerLane
    rewards: tuple[Reward, ...]
    description: str = ""

    @property
    def versions(self) -> dict[str, str]:
        """Model name → version."""
        return {reward.name: reward.fingerprint for reward in self.rewards}


@dataclass(frozen=True, eq=False)
class ServedFamily:
    """A lane that generates, and its policy family. ``description`` says how it computes, for the log."""

    lane: TextLane
    family: Family
    description: str = ""

    @property
    def versions(self) -> dict[str, str]:
        """Model name → version."""
        return {self.family.name: self.family.fingerprint}


Served = ServedBackbone | ServedFamily


class Models:
    """The models that are served at one moment. It is immutable: a change of the registry makes a new one.

    Attributes:
        served: all lanes with their models, in the order in which they were added.
        rewards: objective name → :class:`Reward`.
        families: family name → :class:`Family`.
        scorers: objective name → its lane.
        generators: family name → its lane.

    Raises:
        ValueError: two rewards or two families have the same name.
    """

    def __init__(self, served: Sequence[Served] = ()) -> None:
        self.served = tuple(served)
        backbones = [each for each in served if isinstance(each, ServedBackbone)]
        families = [each for each in served if isinstance(each, ServedFamily)]
        _check_names([reward.name for each in backbones for reward in each.rewards], "rewards")
        _check_names([each.family.name for each in families], "policy families")
        self.rewards = {reward.name: reward for each in backbones for reward in each.rewards}
        self.families = {each.family.name: each.family for each in families}
        self.scorers = {reward.name: each.lane for each in backbones for reward in each.rewards}
        self.generators = {each.family.name: each.lane for each in families}

    @property
    def lanes(self) -> list[AnyLane]:
        """All lanes, each once."""
        return [each.lane for each in self.served]


class Registry:
    """The models that are served now, and those that requests in flight still use.

    Attributes:
        current: the models for requests that start now.
    """

    def __init__(self, served: Sequence[Served] = ()) -> None:
        self.current = Models(served)
        self._held: Counter[Models] = Counter()
        self._leaving: dict[Served, asyncio.Event] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._heap = HeapKeeper(lambda: bool(self._leaving) or any(lane.has_work for lane in self.lanes))

    @property
    def lanes(self) -> list[AnyLane]:
        """All lanes that run: first those of the current models, then those that finish their last requests."""
        return [*self.current.lanes, *(each.lane for each in self._leaving)]

    @property
    def leaving(self) -> tuple[Served, ...]:
        """What was taken out and finishes its last requests."""
        return tuple(self._leaving)

    def versions(self, name: str) -> dict[str, AnyLane]:
        """Return version → lane of a model. There are two while an old version finishes its requests."""
        known = [*self._leaving, *self.current.served]
        return {each.versions[name]: each.lane for each in known if name in each.versions}

    @contextmanager
    def hold(self, models: Models | None = None) -> Iterator[Models]:
        """Keep models open for one request: the current models, or ``models``, which it already holds."""
        models = models or self.current
        self._held[models] += 1
        try:
            yield models
        finally:
            self._held[models] -= 1
            if not self._held[models]:
                del self._held[models]
            self._release()

    def add(self, *new: Served) -> None:
        """Serve more models.

        Raises:
            ValueError: a name is already used; nothing was changed.
        """
        self.change([*self.current.served, *new])

    def swap(self, old: Served, new: Served) -> None:
        """Replace ``old`` by ``new``. Requests that hold ``old`` finish on it; see :meth:`drain`.

        Raises:
            ValueError: ``old`` is not served, or a name of ``new`` is already used; nothing was changed.
        """
        self._replace(old, [new])

    def remove(self, old: Served) -> None:
        """Stop serving ``old``. Requests that hold it finish on it; see :meth:`drain`.

        Raises:
            ValueError: ``old`` is not served.
        """
        self._replace(old, [])

    async def drain(self) -> None:
        """Wait until all replaced and removed lanes are closed."""
        while self._closing:
            await asyncio.wait(self._closing)

    async def close(self) -> None:
        """Close all lanes, whether or not requests still use them."""
        for free in self._leaving.values():
            free.set()
        await asyncio.gather(*self._closing, *(lane.close() for lane in self.current.lanes))
        self._heap.stop()

    def change(self, served: Sequence[Served]) -> None:
        """Serve exactly these from now on, in one step. What is not among them leaves, as by :meth:`swap`.

        Raises:
            ValueError: a name is used twice; nothing was changed.
        """
        models = Models(served)
        gone = [each for each in self.current.served if each not in models.served]
        self.current = models
        for old in gone:
            self.retire(old)
        self._heap.collect_later()

    def retire(self, old: Served) -> None:
        """Close the lane of what is not served, as soon as no request holds it; see :meth:`drain`."""
        free = self._leaving[old] = asyncio.Event()
        closing = asyncio.get_running_loop().create_task(self._close(old, free))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._release()

    def _replace(self, old: Served, new: Sequence[Served]) -> None:
        served = list(self.current.served)
        if old not in served:
            raise ValueError(f"{old.lane.name} is not served")
        place = served.index(old)
        self.change([*served[:place], *new, *served[place + 1 :]])

    def _release(self) -> None:
        """Let the lanes close that were taken out and that no request holds."""
        if self._leaving:
            held = {each for models in self._held for each in models.served}
            for each, free in self._leaving.items():
                if each not in held:
                    free.set()

    async def _close(self, old: Served, free: asyncio.Event) -> None:
        await free.wait()
        try:
            await old.lane.close()
        except Exception:
            LOG.exception("the lane %s was removed but could not be closed", old.lane.name)
        finally:
            del self._leaving[old]
            self._heap.collect_later()


def _check_names(names: Sequence[str], what: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two {what} are called {twice!r}")
