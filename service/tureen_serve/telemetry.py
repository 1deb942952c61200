"""Metrics of the server. They hold no texts, no weights and no raw paths.

A label is the template of a route, the name of a model or a word from a short list. So the number of time series is
bounded.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from importlib.metadata import version
from itertools import product
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from tureen.errors import TureenError
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.lane import LaneRun
from tureen_serve.inference.pooled_model import ModelEvent
from tureen_serve.watching.lane_metrics import SECONDS, LaneMetrics
from tureen_serve.watching.score_watch import ScoreWatch
from tureen_serve.watching.shadow_watch import ShadowWatch

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOG = logging.getLogger(__name__)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
QUIET = {"/health", "/health/live", "/health/ready", "/metrics"}
REJECTIONS = {
    "queue_full",
    "engine_dead",
    "model_loading",
    "models_busy",
    "not_ready",
    "draining",
    "deadline_exceeded",
    "payload_too_large",
    "request_too_large",
    "slow_body",
    "text_too_large",
    "too_many_values",
    "headers_too_large",
    "invalid_http",
    "requests_quota_exceeded",
    "tokens_quota_exceeded",
}
CHANGES = ("load", "unload", "shadow", "reread")
SERIES = 1024  # series that are found without going through their labels again
UNMATCHED = "unmatched"  # the route of a path that no route has
UNPARSED = "unparsed"  # the route of what is not a request, or has too many headers


class Metrics:
    """The Prometheus registry of one server. Every name starts with ``tureen_``.

    Attributes:
        find_count, find_duration, find_texts, find_tokens: find a series by its labels, as each request needs them.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "tureen_http_requests", "Requests answered", ["route", "method", "status"], registry=registry
        )
        self.duration = Histogram(
            "tureen_http_request_duration_seconds",
            "Time from the first byte in to the last byte out",
            ["route", "status_class"],
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("tureen_http_requests_in_flight", "Requests being answered", registry=registry)
        self.rejections = Counter(
            "tureen_admission_rejections", "Requests turned away or given up", ["reason"], registry=registry
        )
        self.texts = Counter("tureen_texts", "Texts scored or written", ["model", "outcome"], registry=registry)
        self.tokens = Counter("tureen_tokens", "Tokens read or made", ["model", "direction"], registry=registry)
        self.read = Counter("tureen_read_texts", "Texts that rewards were asked for", registry=registry)
        self.truncated = Counter("tureen_truncated_texts", "Texts cut to fit a model", registry=registry)
        self.normalised = Counter(
            "tureen_normalised_texts", "Texts not read as they were sent", ["what"], registry=registry
        )
        self.nonfinite = Counter("tureen_nonfinite_scores", "Scores that were not finite", ["model"], registry=registry)
        self.labels = Counter("tureen_labels", "Labels of preference", ["outcome"], registry=registry)
        self.scores = ScoreWatch(registry)
        self.ready = Gauge("tureen_ready", "1 when all that is configured is loaded and proven", registry=registry)
        self.load_seconds = Gauge("tureen_model_load_seconds", "Time the models took to load", registry=registry)
        self.loads = Counter("tureen_model_loads", "Models loaded on demand", ["outcome"], registry=registry)
        self.evictions = Counter("tureen_model_evictions", "Models unloaded to make room", registry=registry)
        self.load_times = Histogram(
            "tureen_model_on_demand_load_seconds", "Time of one load on demand", buckets=SECONDS, registry=registry
        )
        self.loaded = Gauge("tureen_models_loaded", "Models on demand that are loaded", registry=registry)
        self.changes = Counter(
            "tureen_model_changes",
            "Changes of the models while the server runs",
            ["action", "result"],
            registry=registry,
        )
        self.change_times = Histogram(
            "tureen_model_change_seconds", "Time of one such change", ["action"], buckets=SECONDS, registry=registry
        )
        self.shadows = ShadowWatch(registry)
        self.model = Gauge("tureen_model_info", "What is loaded", ["model", "kind", "fingerprint"], registry=registry)
        self.lanes = LaneMetrics(registry)
        ProcessCollector(namespace="tureen", registry=registry)
        self.find_count = lru_cache(SERIES)(self.requests.labels)
        self.find_duration = lru_cache(SERIES)(self.duration.labels)
        self.find_texts, self.find_tokens = (lru_cache(SERIES)(each.labels) for each in (self.texts, self.tokens))
        for reason in REJECTIONS:
            self.rejections.labels(reason)
        for action, result in product(CHANGES, ("done", "refused", "failed")):
            self.changes.labels(action, result)
        build = Gauge("tureen_build_info", "The version that runs", ["version"], registry=registry)
        build.labels(version("tureen")).set(1)

    def observe(self, ran: LaneRun | ModelEvent) -> None:
        """Count what a lane ran, on the lane's thread; or that a model was loaded or unloaded."""
        if isinstance(ran, ModelEvent):
            self._count_model(ran)
            return
        self.lanes.observe(ran)

    def _count_model(self, event: ModelEvent) -> None:
        if event.kind == "evicted":
            self.evictions.inc()
            return
        self.loads.labels(event.kind).inc()
        if event.kind == "loaded":
            self.load_times.observe(event.seconds)

    def count_change(self, action: str, result: str, seconds: float | None = None) -> None:
        """Count a change of the models: one of :data:`CHANGES`, and whether it was done, refused or failed."""
        self.changes.labels(action, result).inc()
        if seconds is not None:
            self.change_times.labels(action).observe(seconds)

    def count_request(self, route: str, method: str, status: int, fault: str | None) -> None:
        """Count a request that was answered, and why it was turned away."""
        self.find_count(route, method if method in METHODS else "other", str(status)).inc()
        if fault in REJECTIONS:
            self.rejections.labels(fault).inc()

    def count_unparsed(self, error: TureenError) -> None:
        """Count and log a request that the HTTP parser refused: it has no route and no method."""
        self.count_request(UNPARSED, "", error.status, error.code)
        facts = {"route": UNPARSED, "status": error.status, "fault": error.code}
        LOG.info("%s %s", UNPARSED, error.status, extra={"facts": facts})

    def count_normalised(self, names: Iterable[str]) -> None:
        """Count a text that was not read as it was sent, once for each kind of change."""
        for what in {name.partition(".")[0] for name in names}:
            self.normalised.labels(what).inc()

    def text(self, engine: Engine | None, ready: bool) -> bytes:
        """Return all metrics in Prometheus' text format, with the current models and queues."""
        self.ready.set(ready)
        self.model.clear()
        self.lanes.note_lanes(engine)
        if engine is not None:
            self._note_models(engine)
        return generate_latest(self.registry)

    def _note_models(self, engine: Engine) -> None:
        self.loaded.set(len(engine.pool.loaded) if engine.pool else 0)
        for name, reward in engine.loaded_rewards.items():
            self.model.labels(name, "reward", reward.fingerprint).set(1)
            self.nonfinite.labels(name)  # a series that begins at 1 never rises
            self.texts.labels(name, "failed")
        for name, family in engine.families.items():
            self.model.labels(name, "policy", family.fingerprint).set(1)
