"""Prometheus metrics of batches. Labels are states or outcomes, so the number of series is bounded."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tureen.wire import STATUSES

DURATIONS = (60, 300, 900, 1800, 3600, 7200, 14400, 28800, 57600, 86400)


class BatchMetrics:
    """The metrics of files and batches, on a server's registry.

    Args:
        failing: returns whether files and batches cannot be reached or run at the moment.
    """

    def __init__(self, registry: CollectorRegistry, failing: Callable[[], bool]) -> None:
        broken = Gauge("tureen_batches_failing", "1 while files and batches cannot be had or run", registry=registry)
        broken.set_function(failing)
        self._jobs = Gauge("tureen_jobs", "Batches in the store, whoever runs them", ["state"], registry=registry)
        self._oldest = Gauge(
            "tureen_job_oldest_queued_age_seconds", "Age of the oldest batch that has not begun", registry=registry
        )
        self._lines = Counter("tureen_job_lines", "Lines that this server has run", ["outcome"], registry=registry)
        for outcome in ("completed", "failed"):
            self._lines.labels(outcome)
        self._duration = Histogram(
            "tureen_job_duration_seconds",
            "Time from a batch's creation to its end",
            buckets=DURATIONS,
            registry=registry,
        )

    def set_batches(self, counts: Mapping[str, int], oldest: float) -> None:
        """Set the number of batches in each state, and the age in seconds of the oldest that waits."""
        for status in STATUSES:
            self._jobs.labels(status).set(counts.get(status, 0))
        self._oldest.set(oldest)

    def count_lines(self, completed: int, failed: int) -> None:
        """Count lines whose results were committed."""
        self._lines.labels("completed").inc(completed)
        self._lines.labels("failed").inc(failed)

    def observe_duration(self, seconds: float) -> None:
        """Observe the duration of a batch that has ended."""
        self._duration.observe(seconds)
