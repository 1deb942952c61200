"""Work in a thread that a caller who leaves can end: it is done in pieces, and asks between them whether to go on.

All such work holds the interpreter's lock most of the time, so it has no more threads than cores: with more, the event
loop waits for more of them whenever it needs the lock. Large work has threads of its own, so that the texts of small
requests do not wait behind it.
"""

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
GoOn = Callable[[], None]

LARGE_BYTES = 2**15  # of texts: reading as many takes some tens of milliseconds
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SMALL = ThreadPoolExecutor(CORES, "small work")
LARGE = ThreadPoolExecutor(max(1, CORES // 2), "large work")


class AbandonedError(Exception):
    """The caller of this work has left. It ends the thread's work and is seen by nobody."""


async def run_pieces(work: Callable[[GoOn], T], large: bool = False) -> T:
    """Run work in a thread, and return its result.

    If this call is cancelled, work that has not begun never begins, and work that runs ends at its next piece.

    Args:
        work: calls its argument before each piece.
        large: whether it may take longer than the texts of a small request, see :data:`LARGE_BYTES`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def go_on() -> None:
        if future.cancelled():
            raise AbandonedError

    def run() -> None:
        if future.cancelled():
            return
        try:
            settle: Callable[[Any], None] = future.set_result
            found: Any = work(go_on)
        except BaseException as error:  # a panic in Rust code is no Exception
            settle, found = future.set_exception, error
        with suppress(RuntimeError):  # the loop has ended, so nobody waits
            loop.call_soon_threadsafe(_settle, future, settle, found)

    (LARGE if large else SMALL).submit(contextvars.copy_context().run, run)
    return await future


def _settle(future: asyncio.Future[Any], settle: Callable[[Any], None], found: Any) -> None:
    """Set a result or an error, on the event loop, unless the caller has left."""
    if not future.done():
        settle(found)
