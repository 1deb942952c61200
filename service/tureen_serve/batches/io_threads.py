"""Blocking calls beside the event loop, in threads of their own, so that they hold up nobody else's."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class IoThreads:
    """A few threads for calls that wait for disks and databases."""

    def __init__(self, threads: int = 4) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="batches")

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result. Whoever is cancelled while waiting for it does not end it."""
        return await asyncio.wrap_future(self._threads.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Wait for the calls that run, and drop those that have not begun."""
        self._threads.shutdown(cancel_futures=True)
