"""Metrics of the lanes: batches, queues, and what was not computed again."""

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tureen_serve.inference.engine import Engine
from tureen_serve.inference.lane import LaneRun
from tureen_serve.runtimes.upstream_contract import Outcome

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
POWERS = tuple(2**power for power in range(18))


class LaneMetrics:
    """The metrics of all lanes, on a server's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._batch_seconds = Histogram(
            "tureen_inference_seconds", "Time of one batch or step", ["lane"], buckets=SECONDS, registry=registry
        )
        self._batch_rows = Histogram(
            "tureen_batch_rows", "Texts in one batch or step", ["lane"], buckets=POWERS[:9], registry=registry
        )
        self._batch_tokens = Histogram(
            "tureen_batch_tokens", "Tokens in one batch or step", ["lane"], buckets=POWERS, registry=registry
        )
        self._cached = Counter("tureen_cached_tokens", "Tokens not computed again", ["lane"], registry=registry)
        self._failed = Counter("tureen_failed_rows", "Texts that a runtime failed on", ["lane"], registry=registry)
        self._waiting = Gauge("tureen_queue_requests", "Texts that wait", ["lane"], registry=registry)
        self._waiting_tokens = Gauge(
            "tureen_queue_tokens", "Tokens that wait to be scored", ["lane"], registry=registry
        )
        self._running = Gauge("tureen_running_texts", "Texts in the batch that runs", ["lane"], registry=registry)
        self._remembered = Counter(
            "tureen_remembered_scores", "Texts whose scores were remembered", ["lane"], registry=registry
        )
        self._looked_up = Counter(
            "tureen_score_lookups", "Texts looked up among the remembered scores", ["lane"], registry=registry
        )

        self._exhausted = Counter(
            "tureen_out_of_memory", "Batches and steps for which memory ran out", ["lane"], registry=registry
        )
        self._upstream_failing = Gauge(
            "tureen_upstream_failing", "1 when an upstream's last reply was none", ["lane"], registry=registry
        )
        self._upstream_requests = Counter(
            "tureen_upstream_requests", "Requests to upstreams", ["lane", "outcome"], registry=registry
        )
        self._cleared = (
            self._upstream_failing,
            self._upstream_requests,
            self._waiting,
            self._waiting_tokens,
            self._running,
            self._remembered,
            self._looked_up,
            self._exhausted,
        )

    def observe(self, ran: LaneRun) -> None:
        """Count what a lane ran, on the lane's thread."""
        self._batch_seconds.labels(ran.lane).observe(ran.seconds)
        self._batch_rows.labels(ran.lane).observe(ran.rows)
        self._batch_tokens.labels(ran.lane).observe(ran.tokens)
        self._cached.labels(ran.lane).inc(ran.cached)
        self._failed.labels(ran.lane).inc(ran.failed)

    def note_lanes(self, engine: Engine | None) -> None:
        """Set what is known of the lanes that run now. A lane that has ended has no more queue."""
        for each in self._cleared:
            each.clear()
        if engine is None:
            return
        for lane in engine.scorers:  # two lanes have the same name while one replaces the other
            self._waiting.labels(lane.name).inc(lane.queued_rows)
            self._waiting_tokens.labels(lane.name).inc(lane.queued_tokens)
            self._running.labels(lane.name).inc(lane.running)
            self._remembered.labels(lane.name).inc(lane.cache_hits)
            self._looked_up.labels(lane.name).inc(lane.cache_lookups)
            self._exhausted.labels(lane.name).inc(lane.memory_failures)
        for generator in engine.generators:
            self._waiting.labels(generator.name).inc(generator.waiting)
            self._running.labels(generator.name).inc(generator.running)
            self._exhausted.labels(generator.name).inc(generator.memory_failures)
        for far in engine.upstreams:
            self._upstream_failing.labels(far.name).set(far.upstream.trouble is not None)
            for outcome in get_args(Outcome):
                self._upstream_requests.labels(far.name, outcome).inc(far.upstream.outcomes[outcome])
