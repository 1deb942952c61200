"""One request of a bench, and the figures of many."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from tureen.bench.latencies import correct_for_omission, find_quantile, summarise_latencies


@dataclass(frozen=True)
class Load:
    """What is asked of a server: ``rate`` requests a second, or ``concurrency`` requests at a time."""

    rate: float | None = None
    concurrency: int | None = None

    def __str__(self) -> str:
        return f"{self.rate:g}/s" if self.rate is not None else f"{self.concurrency} at a time"


@dataclass(frozen=True)
class Trial:
    """One request. Times are in seconds since the load began.

    Attributes:
        due: when it was to be sent. In a closed loop this is when it was sent.
        sent: when it was sent.
        ended: when its reply had come, or it had failed.
        status: the reply's status, or None if there was none.
        error: why there was no reply.
        told_when: whether the reply says when to try again.
    """

    due: float
    sent: float
    ended: float
    status: int | None = None
    error: str | None = None
    told_when: bool = False

    @property
    def latency(self) -> float:
        """The seconds since it was due."""
        return self.ended - self.due

    @property
    def answered(self) -> bool:
        """Whether it got what it asked for."""
        return self.status == HTTPStatus.OK

    @property
    def refused(self) -> bool:
        """Whether the server has answered with an error."""
        return self.status is not None and not self.answered

    @property
    def timed_out(self) -> bool:
        """Whether time was up, here or at the server."""
        return self.error == TIMED_OUT or self.status == HTTPStatus.GATEWAY_TIMEOUT


TIMED_OUT = "timed out"


def summarise_trials(load: Load, trials: Sequence[Trial], within: float | None = None) -> dict[str, Any]:
    """Return the figures of a load, as JSON. Times are in seconds.

    ``latency`` is of the requests that were answered, and of those that timed out, with the time until then: without
    them a server would look the faster the more it loses. In a closed loop it is corrected, and ``measured`` is not.

    Args:
        within: goodput counts the answers within so many seconds; all if None.
    """
    seconds = max((each.ended for each in trials), default=0.0)
    good = sum(each.answered and (within is None or each.latency <= within) for each in trials)
    refused = [each for each in trials if each.refused]
    measured = [each.latency for each in trials if each.answered or each.timed_out]
    closed = load.concurrency is not None
    corrected = correct_for_omission(measured, statistics.median(measured)) if closed and measured else measured
    return {
        "rate": load.rate,
        "concurrency": load.concurrency,
        "seconds": seconds,
        "sent": len(trials),
        "answered": sum(each.answered for each in trials),
        "sent_rate": len(trials) / seconds if seconds else 0.0,
        "goodput": good / seconds if seconds else 0.0,
        "latency": summarise_latencies(corrected),
        "measured": summarise_latencies(measured) if closed else None,
        "refusals": {str(status): count for status, count in sorted(Counter(each.status for each in refused).items())},
        "refusals_without_retry_after": sum(
            each.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE) and not each.told_when
            for each in refused
        ),
        "refusal_latency": summarise_latencies([each.latency for each in refused]),
        "errors": dict(sorted(Counter(each.error for each in trials if each.error).items())),
        "lag_p99": find_quantile(sorted(each.sent - each.due for each in trials), 0.99) or 0.0,
    }
