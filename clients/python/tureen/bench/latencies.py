"""Quantiles of latencies, and their correction for coordinated omission."""

import math
from collections.abc import Sequence

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999, "max": 1.0}


def summarise_latencies(latencies: Sequence[float]) -> dict[str, float | None]:
    """Return :data:`QUANTILES` of latencies, exact by nearest rank; None of none."""
    ordered = sorted(latencies)
    return {name: find_quantile(ordered, share) for name, share in QUANTILES.items()}


def find_quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that ``share`` of the ascending values do not exceed, or None of no values."""
    if not ordered:
        return None
    rank = math.ceil(share * len(ordered) - 1e-9)  # 0.999 · 1000 is a little more than 999
    return ordered[max(rank, 1) - 1]


def correct_for_omission(latencies: Sequence[float], interval: float) -> list[float]:
    """Add the latencies that a closed loop omits while it waits.

    A caller that waits sends nothing, so a stall counts once where callers that come by the clock would all have met
    it. For each latency L above ``interval`` this adds L − interval, L − 2·interval, … down to ``interval``, as
    HdrHistogram's ``recordValueWithExpectedInterval`` does.

    Args:
        latencies: seconds.
        interval: the seconds between two requests of one caller that does not wait; above 0.
    """
    found = list(latencies)
    for latency in latencies:
        found += [latency - step * interval for step in range(1, int(latency / interval + 1e-9))]
    return found
