"""A lock that knows how long it has been held."""

import asyncio
import time
from typing import Literal


class TimedLock(asyncio.Lock):
    """An asyncio lock for work that may be stuck."""

    def __init__(self) -> None:
        super().__init__()
        self._since: float | None = None

    @property
    def held_seconds(self) -> float:
        """How long it has been held; 0 if it is free."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    async def acquire(self) -> Literal[True]:
        """Wait for the lock and take it."""
        await super().acquire()
        self._since = time.monotonic()
        return True

    def release(self) -> None:
        """Give it back."""
        self._since = None
        super().release()
