"""When to retry a request and how long to wait first. The caller passes the clock and the random numbers."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from tureen.errors import DeadlineExceeded, TureenError

SETTLED = {"non_finite_score"}  # a retry would give the same score


@dataclass(frozen=True)
class Retries:
    """How often a failed request is retried, and after which waits.

        Client(retries=Retries(limit=10, outage=300))

    Waits double from ``first`` to ``most``. Each is shortened by a random part of up to a quarter, so that clients that
    failed together do not retry together. A Retry-After of the server replaces the wait, as in the openai SDK.

    Attributes:
        limit: retries after the first try; 0 sends every request once.
        first: seconds before the first retry.
        most: the longest wait in seconds that doubling reaches.
        patience: the longest Retry-After to accept, in seconds; a longer one ends the retries.
        outage: seconds during which a request is retried beyond ``limit``, as while a server restarts.
    """

    limit: int = 5
    first: float = 0.5
    most: float = 8.0
    patience: float = 120.0
    outage: float = 0.0

    def wait(self, tries: int, error: TureenError, draw: float, away: float = math.inf) -> float | None:
        """Return the seconds before the next try, or None to give up.

        Args:
            tries: the number of tries made, at least 1.
            error: the error of the last try; its ``retry_after`` is the server's Retry-After.
            draw: a random number in [0, 1).
            away: seconds since the first try failed.
        """
        again = error.retryable or error.retry_after  # a Retry-After asks for a retry
        spent = tries > self.limit and away >= self.outage
        if not again or error.code in SETTLED or spent or (error.retry_after or 0) > self.patience:
            return None
        if error.retry_after:
            return error.retry_after
        doublings = min(tries - 1, 64)
        return min(self.first * 2.0**doublings, self.most) * (1 - draw / 4)


class Deadline:
    """A point in time after which a call gives up.

    Args:
        seconds: the time from now; None means no deadline.
        clock: a monotonic clock in seconds.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = math.inf if seconds is None else clock() + seconds

    def left(self) -> float:
        """Return the seconds left, negative after the deadline."""
        return self._end - self._clock()

    def check(self, cause: Exception | None = None) -> None:
        """Raise if the deadline has passed.

        Raises:
            DeadlineExceeded: it has passed; ``cause`` becomes the error's cause.
        """
        if self.left() <= 0:
            raise DeadlineExceeded(f"not answered within the {self.seconds:g} s allowed") from cause
