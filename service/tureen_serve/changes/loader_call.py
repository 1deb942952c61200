"""Call a loader, which does one thing at a time, in a thread."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tureen_serve.inference.daemon_thread import run_in_daemon_thread

T = TypeVar("T")


async def call_in_turn(turn: asyncio.Lock, work: Callable[[], T], discard: Callable[[T], None]) -> T:
    """Call work in a thread when it is its turn. The turn ends with the thread, also if the caller leaves before.

    A caller who leaves before the turn is not called for.

    Args:
        turn: the lock of all loads of the process.
        discard: called with a result that nobody takes.
    """

    begun = False

    async def call() -> T:
        nonlocal begun
        async with turn:
            begun = True
            return await run_in_daemon_thread(work, discard)

    def end(done: asyncio.Task[T]) -> None:
        if not done.cancelled() and done.exception() is None:
            discard(done.result())

    task = asyncio.create_task(call())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if begun:
            task.add_done_callback(end)
        else:
            task.cancel()
        raise
