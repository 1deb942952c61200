"""The quota of a key: requests and tokens in a minute, each counted by a bucket that fills steadily.

Tokens are taken off when they have been computed, because only then is their number known. So a caller can overdraw the
bucket with the requests in flight, and then waits until the debt is paid.
"""

import time
from collections.abc import Callable

from tureen.errors import RateLimited

MINUTE = 60.0
Clock = Callable[[], float]


class Bucket:
    """Holds at most ``per_minute`` units, and gains as many in a minute.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._since = clock()

    def find_wait(self) -> float:
        """Return the seconds until one unit is there; 0 if it is."""
        now = self._clock()
        gained = (now - self._since) * self.per_minute / MINUTE
        self._level, self._since = min(self._level + gained, self.per_minute), now
        return max(0.0, (1 - self._level) * MINUTE / self.per_minute)

    def take(self, units: int) -> None:
        """Take units, also those that are not there yet."""
        self._level -= units


class Quota:
    """What one key may use in a minute. None stands for no bound.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, requests: int | None, tokens: int | None, clock: Clock = time.monotonic) -> None:
        self.limits = requests, tokens
        self._requests = Bucket(requests, clock) if requests else None
        self._tokens = Bucket(tokens, clock) if tokens else None

    def admit_request(self, name: str) -> None:
        """Count a request.

        Args:
            name: the key's name, for the message.

        Raises:
            RateLimited: the quota is used up; ``retry_after`` says when to come back.
        """
        for bucket, what in ((self._requests, "requests"), (self._tokens, "tokens")):
            if bucket is not None and (wait := bucket.find_wait()):
                message = f"the key {name!r} has used its quota of {bucket.per_minute} {what} a minute"
                raise RateLimited(f"{message}; try again later", code=f"{what}_quota_exceeded", retry_after=wait)
        if self._requests is not None:
            self._requests.take(1)

    def charge_tokens(self, tokens: int) -> None:
        """Take tokens that were computed."""
        if self._tokens is not None:
            self._tokens.take(tokens)
