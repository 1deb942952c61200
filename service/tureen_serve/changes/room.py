"""Whether a new version of a model has room beside the old one, by the plan of memory or by what is free."""

from collections.abc import Callable, Collection
from dataclasses import replace

from tureen.errors import Conflict
from tureen_serve.inference.registry import Registry, Served
from tureen_serve.limit_settings import ServerLimits
from tureen_serve.memory_plan import GIB, MemoryPlan, plan_lane, read_available_bytes


class Room:
    """Keeps the plan of memory while models change.

    Args:
        limits: ``memory_gib`` is the bound; without one a load needs free memory.
        plan: that of the start.
        workspace: the bytes that a batch takes.
        registry: knows which models still run.
        limit_prompts: sets the bytes of kept prompts, which make room for a second version.
        read_available: reads the free memory of this machine; None where it cannot be read.
    """

    def __init__(
        self,
        limits: ServerLimits,
        plan: MemoryPlan,
        workspace: int,
        registry: Registry,
        limit_prompts: Callable[[int], None],
        read_available: Callable[[], int | None] = read_available_bytes,
    ) -> None:
        self._limits, self._plan, self._registry = limits, plan, registry
        self._lane_bytes = plan_lane(limits, workspace)
        self._limit_prompts, self._read_available = limit_prompts, read_available
        self._began = tuple(registry.current.served)
        self._added: dict[Served, int] = {}  # what was loaded since the start → its bytes
        self._ended: dict[Served, int] = {}  # what the start loaded and was taken out → its bytes

    def check(self, what: str, needed: int, lanes: int = 1, device_free: int | None = None) -> None:
        """Check that weights have room beside all that is loaded, and let kept prompts make way.

        Args:
            what: names the model, for the error.
            needed: bytes.
            lanes: the number of new lanes.
            device_free: the free bytes of the device if it has a memory of its own.

        Raises:
            Conflict: they have none. The code is ``no_room``.
        """
        if device_free is not None:
            if needed > device_free:
                raise _refuse(what, needed, f"the device has {device_free / GIB:.3g} GiB free")
            return
        if self._limits.memory_gib is None:
            free = self._read_available()
            if free is not None and needed > free:
                raise _refuse(what, needed, f"the machine has {free / GIB:.3g} GiB free")
            return
        plan = self._make_plan(needed + lanes * self._lane_bytes)
        try:
            plan = plan.fit(self._limits.memory_gib)
        except ValueError as error:
            used = plan.total - plan.parts["prompts"] - plan.parts["beside"]
            bound = f"`limits.memory_gib` is {self._limits.memory_gib:g}, of which {used / GIB:.3g} are taken"
            raise _refuse(what, plan.parts["beside"], bound) from error
        self._limit_prompts(plan.parts["prompts"])

    def note_added(self, served: Served, needed: int) -> None:
        """Note a model that was loaded."""
        self._added[served] = needed

    def note_ended(self, served: Served, freed: int) -> None:
        """Note a model that was taken out, and frees so many bytes when its lane is closed."""
        if served in self._began:
            self._ended[served] = freed

    def settle(self, kept: Collection[Served] = ()) -> None:
        """Give kept prompts the room of models that are closed.

        Args:
            kept: models that run outside of the registry.
        """
        running = {*self._registry.current.served, *self._registry.leaving, *kept}
        self._added = {served: size for served, size in self._added.items() if served in running}
        if self._limits.memory_gib is not None:
            self._limit_prompts(self._make_plan(0).fit(self._limits.memory_gib).parts["prompts"])

    def _make_plan(self, beside: int) -> MemoryPlan:
        """Make the plan of this moment. Models that finish their last requests count as loaded."""
        running = {*self._registry.current.served, *self._registry.leaving}
        freed = sum(size + self._lane_bytes for served, size in self._ended.items() if served not in running)
        added = sum(size + self._lane_bytes for size in self._added.values())
        loaded = self._plan.parts["loaded"] + added - freed
        return replace(self._plan, parts={**self._plan.parts, "loaded": loaded, "beside": beside})


def _refuse(what: str, needed: int, why: str) -> Conflict:
    message = f"{what} needs {needed / GIB:.3g} GiB beside what is served, and {why}"
    return Conflict(f"{message}; unload another model first, or give the server more memory", code="no_room")
