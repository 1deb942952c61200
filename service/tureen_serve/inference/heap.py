"""Keep loaded models out of garbage collections.

torch, transformers and loaded models are millions of objects. A full collection visits all of them and delays every
request, unless they are frozen (:func:`gc.freeze`).
"""

import asyncio
import gc
from collections.abc import Callable

QUIET_SECONDS = 1.0


def freeze_heap() -> None:
    """Collect garbage, then freeze all remaining objects."""
    gc.collect()
    gc.freeze()


def refreeze_heap() -> None:
    """Collect and freeze again after a model was unloaded. Only this frees frozen objects in reference cycles."""
    gc.unfreeze()
    freeze_heap()


class HeapKeeper:
    """Collects and freezes the heap after models have changed, in a quiet moment, as it stops everything meanwhile.

    Weights are freed before, and without it.

    Args:
        is_busy: whether anything has work now.
    """

    def __init__(self, is_busy: Callable[[], bool]) -> None:
        self._is_busy = is_busy
        self._collecting: asyncio.Task[None] | None = None

    def collect_later(self) -> None:
        """Collect once nothing has had work for :data:`QUIET_SECONDS`."""
        if self._collecting is None or self._collecting.done():
            self._collecting = asyncio.get_running_loop().create_task(self._collect())

    def stop(self) -> None:
        """Collect no more."""
        if self._collecting is not None:
            self._collecting.cancel()

    async def _collect(self) -> None:
        clock = asyncio.get_running_loop().time
        worked = clock()
        while clock() - worked < QUIET_SECONDS:
            await asyncio.sleep(QUIET_SECONDS / 10)
            if self._is_busy():
                worked = clock()
        refreeze_heap()
