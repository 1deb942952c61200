"""What batches count. A label is a state or an outcome, so that the number of series is bounded."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tureen.wire import STATUSES

DURATIONS = (60, 300, 900, 1800, 3600, 7200, 14400, 28800, 57600, 86400)


class BatchMetrics:
    """The metrics of files and batches, on a server's registry.

    Args:
        failing: whether they cannot be had or run at the moment.
    """

    def __init__(self, registry: CollectorRegistry, failing: Callable[[], bool]) -> None:
        broken = Gauge("tureen_batches_failing", "1 while files and batches cannot be had or run", registry=registry)
        broken.set_function(failing)
        self._jobs = Gauge("tureen_jobs", "Batches in the store, whoever runs them", ["state"], registry=registry)
        self._oldest = Gauge(
            "tureen_job_oldest_queued_age_seconds", "Age of the oldest batch that has not begun", registry=registry
        )
        self._lines = Counter("tureen_job_lines", "Lines that this server has run", ["outcome"], registry=registry)
        self._duration = Histogram(
            "tureen_job_duration_seconds",
            "Time from a batch's creation to its end",
            buckets=DURATIONS,
            registry=registry,
        )

    def jobs_are(self, counts: Mapping[str, int], oldest: float) -> None:
        """How many batches are in each state, and the age of the oldest that waits."""
        for status in STATUSES:
            self._jobs.labels(status).set(counts.get(status, 0))
        self._oldest.set(oldest)

    def lines_done(self, completed: int, failed: int) -> None:
        """Lines whose results were committed."""
        self._lines.labels("completed").inc(completed)
        self._lines.labels("failed").inc(failed)

    def job_done(self, seconds: float) -> None:
        """A batch that has ended after so long."""
        self._duration.observe(seconds)
