"""The parts of the model pool that do not wait: its models, which of them make room, and which loads have failed."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal, Protocol

from tureen.errors import TureenError, Unavailable, Unprocessable
from tureen_serve.inference.registry import ServedBackbone
from tureen_serve.runtimes.catalogue import Backbone
from tureen_serve.runtimes.footprint import Footprint, add_footprints
from tureen_serve.runtimes.root_folder import Source

Key = tuple[Path, str]
GIB = 2**30
BUSY_SECONDS = 2  # after which a caller tries again when all models are in use
REMEMBERED = {"model_unusable", "model_too_large", "model_not_loaded"}


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """A model was loaded, could not be loaded, or was unloaded. ``seconds`` is the time of the load."""

    kind: Literal["loaded", "failed", "evicted"]
    seconds: float = 0.0


class SourceLoader(Protocol):
    """Measures and loads sources. Its calls block.

    Attributes:
        dtype: the dtype that the models compute in.
    """

    dtype: str

    def measure(self, source: Source) -> Footprint:
        """Estimate the memory of a source's weights."""

    def load(self, source: Source) -> Backbone:
        """Verify, load and prove a source."""


@dataclass(eq=False)
class PooledModel:
    """A loaded model.

    Attributes:
        footprint: the memory of its weights.
        served: its lane and rewards.
        loaded: when it was loaded; larger is later.
        touched: when it was last given to a request; larger is later.
        stays_until: the time until which it takes new requests, although another model needs its memory.
        users: the number of requests that hold it.
        leaving: whether it takes no new requests, and is unloaded when the last one that holds it has ended.
    """

    source: Source
    footprint: Footprint
    served: ServedBackbone
    loaded: int = 0
    touched: int = 0
    stays_until: float = 0.0
    users: int = 0
    leaving: bool = False

    @property
    def idle(self) -> bool:
        """Whether it can be unloaded."""
        return self.users == 0


def choose_victims(
    models: Collection[PooledModel],
    needed: Footprint,
    bound: int,
    kept: Collection[Key] = (),
    now: float = inf,
) -> list[PooledModel] | None:
    """Choose the models to unload so that ``needed`` has room.

    Idle ones go first, the least recently used before others. Then come those in use, the one that was loaded first
    before others, so that models that do not fit together have turns.

    Args:
        models: all models that take memory.
        bound: the bytes of all weights together.
        kept: the keys of models that stay.
        now: the time; models in use that stay longer are left out.

    Returns:
        The models, or None if these do not make room at this time.
    """
    idle = sorted((each for each in models if each.idle), key=lambda each: each.touched)
    used = sorted(
        (each for each in models if not each.idle and each.stays_until <= now),
        key=lambda each: (not each.leaving, each.loaded),
    )
    staying, victims = list(models), []
    for candidate in [each for each in (*idle, *used) if each.source.key not in kept]:
        if _fits(staying, needed, bound):
            break
        staying.remove(candidate)
        victims.append(candidate)
    if not _fits(staying, needed, bound):
        return None
    return _spare(victims, staying, needed, bound)


def _spare(
    victims: Sequence[PooledModel], staying: Sequence[PooledModel], needed: Footprint, bound: int
) -> list[PooledModel]:
    """Leave out the victims that need not go since later ones do, as small models before a large one."""
    left = list(victims)
    for each in reversed(victims):
        others = [other for other in left if other is not each]
        spared = [other for other in victims if other not in others]
        if _fits([*staying, *spared], needed, bound):
            left = others
    return left


def _fits(models: Iterable[PooledModel], needed: Footprint, bound: int) -> bool:
    return add_footprints([*(each.footprint for each in models), needed]) <= bound


def check_size(
    sources: Sequence[Source], footprints: Sequence[Footprint], bound: int, param: str | None = None
) -> None:
    """Check that models can be loaded together.

    Args:
        param: the field of the request that names the first.

    Raises:
        Unprocessable: their weights are larger than the bound.
    """
    total = add_footprints(footprints)
    if total > bound:
        names = " and ".join(each.folder.name for each in sources)
        need = "together need" if len(sources) > 1 else "needs"
        message = f"{names} {need} {total / GIB:.3g} GiB for weights and `rewards_memory_gib` is {bound / GIB:.3g}"
        remedy = "name fewer rewards, or raise the bound" if len(sources) > 1 else "raise the bound"
        raise Unprocessable(f"{message}; {remedy}", param=param, code="model_too_large")


def make_busy_error(source: Source, needed: Footprint, bound: int) -> Unavailable:
    """Make the error for a model that has no room, because requests that use the others do not end."""
    size = add_footprints([needed]) / GIB
    message = f"{source.folder.name} needs {size:.3g} GiB, and the requests that use the loaded models have not ended"
    limit = f"`rewards_memory_gib` is {bound / GIB:.3g}"
    return Unavailable(f"{message}; {limit}; try again later", code="models_busy", retry_after=BUSY_SECONDS)


def list_some(names: Collection[str], most: int = 20) -> str:
    """Write names for an error message, but not more than ``most``."""
    found = sorted(names)
    more = f" and {len(found) - most} more, see GET /v1/models" if len(found) > most else ""
    return f"{', '.join(found[:most])}{more}" or "none"


@dataclass(frozen=True)
class LoadFailure:
    """Why a folder cannot be loaded in this state, until ``ends``."""

    state: str
    error: TureenError
    ends: float


class FailedLoads:
    """Remembers which folders could not be loaded: until they change, or for a time if the cause lies elsewhere.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: dict[Path, LoadFailure] = {}

    def __contains__(self, folder: Path) -> bool:
        return folder in self._failures

    def note(self, source: Source, error: TureenError) -> bool:
        """Remember an error, unless it says that the model could not be loaded just now. Return whether it did."""
        if error.code not in REMEMBERED:
            return False
        ends = self._clock() + (error.retry_after or 0) if isinstance(error, Unavailable) else inf
        self._failures[source.folder] = LoadFailure(source.state, error.copy(), ends)
        return True

    def check(self, source: Source, param: str) -> None:
        """Check that a source may be loaded.

        Args:
            param: the field of the request that names it.

        Raises:
            Unprocessable, Unavailable: an earlier load has failed, and it is not time to try again.
        """
        found = self._failures.get(source.folder)
        if found is None:
            return
        if found.state == source.state and self._clock() < found.ends:
            raise found.error.copy(param)
        del self._failures[source.folder]

    def keep_only(self, folders: Iterable[Path]) -> None:
        """Forget all other folders."""
        kept = set(folders)
        self._failures = {folder: each for folder, each in self._failures.items() if folder in kept}
