"""Many calls of one server, a few at a time, each sent again for about two minutes."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tureen import Client
from tureen.adapters.options import PATIENT
from tureen.errors import ConnectionFailed, DeadlineExceeded, TureenError, Unavailable

PATIENCE = 150.0  # seconds beside the timeout, for all retries of a call
AWAY = (ConnectionFailed, DeadlineExceeded, Unavailable)

T = TypeVar("T")
R = TypeVar("R")


class ServerRefusal(ValueError):
    """A server refuses what every request asks for, as for a key or a model that it does not know."""


def call_server(
    url: str,
    timeout: float,
    threads: int,
    ask: Callable[[Client, float, T], R],
    lose: Callable[[T, TureenError], R],
    tasks: Sequence[T],
    forgiven: type[TureenError] | tuple[()] = (),
) -> Iterator[R]:
    """Yield the result of each task, in their order.

    A call that fails after all retries loses its task. If the server could not be reached, the tasks that follow are
    lost without a call, so an outage costs its patience once.

    Args:
        timeout: seconds that one request may wait.
        threads: the number of calls at a time.
        ask: makes the call of a task; it is given the client, and the seconds that the call may last.
        lose: makes the result of a task that failed.
        forgiven: a class of errors that lose their task although a retry would not help.

    Raises:
        ServerRefusal: the server refuses what every call asks for.
    """
    outage: list[TureenError] = []
    lock = threading.Lock()

    def run(client: Client, task: T) -> R:
        if outage:
            return lose(task, outage[0])
        try:
            return ask(client, timeout + PATIENCE, task)
        except TureenError as error:
            if not (error.retryable or isinstance(error, forgiven)):
                raise
            with lock:
                outage.extend([error] if isinstance(error, AWAY) else [])
            return lose(task, error)

    with Client(url, timeout=timeout, retries=PATIENT) as client, ThreadPoolExecutor(threads) as pool:
        try:
            yield from pool.map(lambda task: run(client, task), tasks)
        except TureenError as error:
            pool.shutdown(cancel_futures=True)
            raise ServerRefusal(f"{url}: {error.message}") from error
