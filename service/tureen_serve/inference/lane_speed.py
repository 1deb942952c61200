"""How fast a lane is, and what follows for those who wait."""

import math

from tureen.errors import Unavailable
from tureen_serve.inference.demand import find_seconds_left

LONGEST_WAIT = 60
CAUTION = 1.15  # times as long as a queue is expected to take, it may take
FIT = 1 / 3  # of the longest time that a waiting text has left: the longest that a batch may take
RECENT = 0.2  # weight of the last run in the measured speed
UNEVEN = 1.5  # times as long as full batches took of late, one may take


class LaneSpeed:
    """The speed of a lane in tokens a second: measured when the models are loaded, and then with every run.

    Attributes:
        recent: a moving average; 0 while nothing was measured.
        pass_seconds: how long a batch takes that leaves others waiting, a moving average.
    """

    def __init__(self) -> None:
        self.recent = 0.0
        self.pass_seconds = 0.0
        self._full = 0.0  # of batches that left others waiting; small batches are slow

    def expect(self, speed: float) -> None:
        """Set the speed that was measured before the first request."""
        self.recent = self._full = speed

    def take_over(self, old: "LaneSpeed") -> None:
        """Expect what an older version of the same models has reached: this one was measured beside its requests."""
        self.recent, self._full = max(self.recent, old.recent), max(self._full, old._full)

    def note(self, tokens: int, seconds: float, full: bool) -> None:
        """Note a run. ``full``: others had to wait for it."""
        if full:
            self.pass_seconds = move_average(self.pass_seconds, seconds)
        speed = tokens / max(seconds, 1e-6)
        self._full = move_average(self._full, speed) if full else max(self._full, speed)
        self.recent = move_average(self.recent, speed)

    def limit_tokens(self, most: int, left: float, streams: int) -> int:
        """Limit the tokens of a batch of one of some streams, so that it takes no more than :data:`FIT` of ``left``."""
        fit = FIT * left * self._full / streams
        return math.ceil(fit) if 0 < fit < most else most

    def expect_pass(self, left: float) -> float:
        """Return the seconds that a full batch may take, if the texts that wait have at most ``left``."""
        return max(min(UNEVEN * self.pass_seconds, UNEVEN * FIT * left), 0.0)

    def find_wait(self, tokens: int) -> int:
        """Return the whole seconds that so many tokens need at the recent speed, as a ``Retry-After``."""
        return _bound_wait(tokens / self.recent if self.recent else 1)

    def check_deadline(self, name: str, tokens: int, others: float = 0.0) -> None:
        """Check that tokens can be read before the call's deadline, at the speed of full batches.

        Args:
            name: of the lane, for the error.
            others: further seconds, for the texts of others in the batch that runs and in the call's own.

        Raises:
            Unavailable: they cannot.
        """
        left = find_seconds_left()
        if left is None or not self._full:
            return
        needed = CAUTION * tokens / self._full + others
        if needed > left:
            message = (
                f"the queue of {name} needs about {needed:.0f} s, and this request may take {left:.0f} s "
                "more; try again later, or allow more time"
            )
            raise Unavailable(message, code="queue_full", retry_after=_bound_wait(needed - left))


def move_average(known: float, value: float) -> float:
    """Move an average towards a new value; the first value is the average."""
    return known + RECENT * (value - known) if known else value


def _bound_wait(seconds: float) -> int:
    return min(max(math.ceil(seconds), 1), LONGEST_WAIT)
