"""The models that are served: name → version → lane. A change is one step, also while requests run.

A request holds the models that it found when it started. A lane that is taken out is closed when the last request that
may use it has gone. A model's version is its fingerprint. All of this runs on the event loop, so nothing is locked.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tureen_serve.inference.generator_lane import GeneratorLane
from tureen_serve.inference.heap import refreeze_heap
from tureen_serve.inference.scorer_lane import ScorerLane
from tureen_serve.inference.stepper_lane import StepperLane
from tureen_serve.runtimes.catalogue import Family, Reward

LOG = logging.getLogger(__name__)

TextLane = StepperLane | GeneratorLane
AnyLane = ScorerLane | TextLane


@dataclass(frozen=True, eq=False)
class ServedBackbone:
    """A lane that scores, and its rewards. ``why`` says how it computes."""

    lane: ScorerLane
    rewards: tuple[Reward, ...]
    description: str = ""

    @property
    def versions(self) -> dict[str, str]:
        """Model name → version."""
        return {reward.name: reward.fingerprint for reward in self.rewards}


@dataclass(frozen=True, eq=False)
class ServedFamily:
    """A lane that generates, and its policy family. ``why`` says how it computes."""

    lane: TextLane
    family: Family
    description: str = ""

    @property
    def versions(self) -> dict[str, str]:
        """Model name → version."""
        return {self.family.name: self.family.fingerprint}


Served = ServedBackbone | ServedFamily


class Models:
    """What is served at one moment. It never changes: a change of the registry makes another one.

    Attributes:
        served: everything, in the order in which it was added.
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
        current: what a request that starts now gets.
    """

    def __init__(self, served: Sequence[Served] = ()) -> None:
        self.current = Models(served)
        self._held: Counter[Models] = Counter()
        self._leaving: dict[Served, asyncio.Event] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def lanes(self) -> list[AnyLane]:
        """All lanes that run: those of the current models, then those that finish their last requests."""
        return [*self.current.lanes, *(each.lane for each in self._leaving)]

    def versions(self, name: str) -> dict[str, AnyLane]:
        """Version → lane of a model: one, or two while the requests of an old one are finished; none if unknown."""
        known = [*self._leaving, *self.current.served]
        return {each.versions[name]: each.lane for each in known if name in each.versions}

    @contextmanager
    def hold(self, models: Models | None = None) -> Iterator[Models]:
        """Keep models open for one request: the current ones, or those that it holds already."""
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
            ValueError: a name is taken; nothing was changed.
        """
        self.current = Models([*self.current.served, *new])
        refreeze_heap()

    def swap(self, old: Served, new: Served) -> None:
        """Serve ``new`` in the place of ``old``. Requests that hold ``old`` finish on it; see :meth:`drain`.

        Raises:
            ValueError: ``old`` is not served, or a name of ``new`` is taken; nothing was changed.
        """
        self._replace(old, [new])

    def remove(self, old: Served) -> None:
        """Serve ``old`` no more. Requests that hold it finish on it; see :meth:`drain`.

        Raises:
            ValueError: it is not served.
        """
        self._replace(old, [])

    async def drain(self) -> None:
        """Wait until everything that was taken out is closed."""
        await asyncio.gather(*self._closing)

    async def close(self) -> None:
        """Close all lanes, whether or not requests still use them."""
        for free in self._leaving.values():
            free.set()
        await asyncio.gather(*self._closing, *(lane.close() for lane in self.current.lanes))

    def _replace(self, old: Served, new: Sequence[Served]) -> None:
        served = list(self.current.served)
        if old not in served:
            raise ValueError(f"{old.lane.name} is not served")
        place = served.index(old)
        served[place : place + 1] = new
        models, loop = Models(served), asyncio.get_running_loop()
        self.current = models
        free = self._leaving[old] = asyncio.Event()
        closing = loop.create_task(self._close(old, free))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._release()

    def _release(self) -> None:
        """Let what no request holds be closed."""
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
            LOG.exception("lane %s was taken out and could not be closed", old.lane.name)
        finally:
            del self._leaving[old], old  # what is still referred to would be frozen with the rest
        refreeze_heap()


def _check_names(names: Sequence[str], what: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two {what} are called {twice!r}")
