"""Threads for calls that block on disks and databases, apart from the event loop's own threads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class IoThreads:
    """A few threads. ``await io(function, argument)`` runs a blocking call in one of them."""

    def __init__(self, threads: int = 4) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="batches")

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the call's result. If the waiting task is cancelled, the call still runs to its end."""
        return await asyncio.wrap_future(self._threads.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Wait for running calls, and drop calls that have not begun."""
        self._threads.shutdown(cancel_futures=True)
