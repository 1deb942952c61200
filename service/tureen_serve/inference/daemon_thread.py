"""Work in a thread that does not delay the end of the process."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
NAME = "loading"


def _keep(_: object) -> None:
    """Leave a result as it is."""


async def run_in_daemon_thread(work: Callable[[], T], discard: Callable[[T], None] = _keep) -> T:
    """Run work in a daemon thread of its own, and return its result. A caller that is cancelled does not stop it.

    An error that no handler of errors expects, such as a panic in Rust code, becomes a ``RuntimeError``.

    Args:
        discard: called in the thread with a result that nobody takes, because the caller was cancelled.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)
        except BaseException as error:
            future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))

    def end(done: Future[T]) -> None:
        if done.exception() is None:
            discard(done.result())

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name=NAME, daemon=True).start()
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        future.add_done_callback(end)
        raise


def has_daemon_work() -> bool:
    """Tell whether work still runs in such a thread. Python's own end would abort a process whose thread loads."""
    return any(thread.name == NAME for thread in threading.enumerate())
