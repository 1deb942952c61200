"""Work in a thread that a caller who leaves can end: it is done in pieces, and asks between them whether to go on."""

import asyncio
import contextvars
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
GoOn = Callable[[], None]


class AbandonedError(Exception):
    """The caller of this work has left. It ends the thread's work and is seen by nobody."""


async def run_pieces(work: Callable[[GoOn], T]) -> T:
    """Run work in a thread, and return its result.

    If this call is cancelled, work that has not begun never begins, and work that runs ends at its next piece.

    Args:
        work: calls its argument before each piece.
    """
    left = False

    def go_on() -> None:
        if left:
            raise AbandonedError

    context = contextvars.copy_context()
    try:
        return await asyncio.get_running_loop().run_in_executor(None, context.run, work, go_on)
    except asyncio.CancelledError:
        left = True
        raise
