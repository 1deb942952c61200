"""Metrics and log lines of the server. They hold no texts, no preferences and no raw paths.

A label is the template of a route, the name of a model or a word from a short list. So the number of time series is
bounded.
"""

import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from tureen_serve.inference.engine import Engine
from tureen_serve.inference.lane import LaneRun
from tureen_serve.inference.pooled_model import ModelEvent

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOG = logging.getLogger(__name__)
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
POWERS = tuple(2**power for power in range(18))
DEVIATIONS = (-4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4)
CLIENT_GONE = 499
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
QUIET = {"/health", "/health/live", "/health/ready", "/metrics"}
REJECTIONS = {
    "queue_full",
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
}


class Metrics:
    """The Prometheus registry of one server. Every name starts with ``tureen_``."""

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
        self.truncated = Counter("tureen_truncated_texts", "Texts cut to fit a model", registry=registry)
        self.normalised = Counter(
            "tureen_normalised_texts", "Texts not read as they were sent", ["what"], registry=registry
        )
        self.nonfinite = Counter("tureen_nonfinite_scores", "Scores that were not finite", ["model"], registry=registry)
        self.score = Histogram(
            "tureen_score",
            "Rewards that have a calibration, to see drift",
            ["model"],
            buckets=DEVIATIONS,
            registry=registry,
        )
        self.ready = Gauge("tureen_ready", "1 when all that is configured is loaded and proven", registry=registry)
        self.load_seconds = Gauge("tureen_model_load_seconds", "Time the models took to load", registry=registry)
        self.loads = Counter("tureen_model_loads", "Models loaded on demand", ["outcome"], registry=registry)
        self.evictions = Counter("tureen_model_evictions", "Models unloaded to make room", registry=registry)
        self.load_times = Histogram(
            "tureen_model_on_demand_load_seconds", "Time of one load on demand", buckets=SECONDS, registry=registry
        )
        self.loaded = Gauge("tureen_models_loaded", "Models on demand that are loaded", registry=registry)
        self.model = Gauge("tureen_model_info", "What is loaded", ["model", "kind", "fingerprint"], registry=registry)
        self.batch_seconds = Histogram(
            "tureen_inference_seconds", "Time of one batch or step", ["lane"], buckets=SECONDS, registry=registry
        )
        self.batch_rows = Histogram(
            "tureen_batch_rows", "Texts in one batch or step", ["lane"], buckets=POWERS[:9], registry=registry
        )
        self.batch_tokens = Histogram(
            "tureen_batch_tokens", "Tokens in one batch or step", ["lane"], buckets=POWERS, registry=registry
        )
        self.cached = Counter("tureen_cached_tokens", "Tokens not computed again", ["lane"], registry=registry)
        self.failed = Counter("tureen_failed_rows", "Texts that a runtime failed on", ["lane"], registry=registry)
        self.waiting = Gauge("tureen_queue_requests", "Texts that wait", ["lane"], registry=registry)
        self.waiting_tokens = Gauge("tureen_queue_tokens", "Tokens that wait to be scored", ["lane"], registry=registry)
        self.running = Gauge("tureen_running_texts", "Texts in the batch that runs", ["lane"], registry=registry)
        self.remembered = Gauge(
            "tureen_remembered_scores", "Scores answered from memory since the start", ["lane"], registry=registry
        )
        build = Gauge("tureen_build_info", "The version that runs", ["version"], registry=registry)
        build.labels(version("tureen")).set(1)

    def observe(self, ran: LaneRun | ModelEvent) -> None:
        """Count what a lane ran, on the lane's thread; or that a model was loaded or unloaded."""
        if isinstance(ran, ModelEvent):
            self._count_model(ran)
            return
        self.batch_seconds.labels(ran.lane).observe(ran.seconds)
        self.batch_rows.labels(ran.lane).observe(ran.rows)
        self.batch_tokens.labels(ran.lane).observe(ran.tokens)
        self.cached.labels(ran.lane).inc(ran.cached)
        self.failed.labels(ran.lane).inc(ran.failed)

    def _count_model(self, event: ModelEvent) -> None:
        if event.kind == "evicted":
            self.evictions.inc()
            return
        self.loads.labels(event.kind).inc()
        if event.kind == "loaded":
            self.load_times.observe(event.seconds)

    def text(self, engine: Engine | None, ready: bool) -> bytes:
        """Return all metrics in Prometheus' text format, with the current models and queues."""
        self.ready.set(ready)
        for gauge in (self.model, self.waiting, self.waiting_tokens, self.running, self.remembered):
            gauge.clear()
        if engine is not None:
            self._note_models(engine)
        return generate_latest(self.registry)

    def _note_models(self, engine: Engine) -> None:
        self.loaded.set(len(engine.pool.loaded) if engine.pool else 0)
        for name, reward in engine.loaded_rewards.items():
            self.model.labels(name, "reward", reward.fingerprint).set(1)
        for name, family in engine.families.items():
            self.model.labels(name, "policy", family.fingerprint).set(1)
        for lane in engine.scorers:  # two lanes have the same name while one replaces the other
            self.waiting.labels(lane.name).inc(lane.queued_rows)
            self.waiting_tokens.labels(lane.name).inc(lane.queued_tokens)
            self.running.labels(lane.name).inc(lane.running)
            self.remembered.labels(lane.name).inc(lane.cache_hits)
        for generator in engine.generators:
            self.waiting.labels(generator.name).inc(generator.waiting)
            self.running.labels(generator.name).inc(generator.running)


class Telemetry:
    """ASGI middleware, the outermost: gives every request an id, measures it, and logs one line for it."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        name = _request_id(scope)
        token = REQUEST_ID.set(name)
        status = CLIENT_GONE

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", name.encode())]}
            await send(message)

        began = time.perf_counter()
        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, named)
            finally:
                self._note(scope, status, time.perf_counter() - began)
                REQUEST_ID.reset(token)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.duration.labels(route, f"{status // 100}xx").observe(seconds)
        fault = scope.get("tureen.fault")
        if fault in REJECTIONS:
            self._metrics.rejections.labels(fault).inc()
        level = logging.DEBUG if route in QUIET else logging.INFO
        facts = {"route": route, "status": status, "seconds": round(seconds, 4), "fault": fault}
        LOG.log(level, "%s %s %s in %.3f s", method, route, status, seconds, extra={"facts": facts})


def _request_id(scope: Scope) -> str:
    """Return the caller's ``x-request-id`` if it is safe to write into a log, else a new id."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SAFE_ID.fullmatch(text := str(value, "latin-1")):
            return text
    return f"req_{uuid.uuid4().hex}"


class TextLines(logging.Formatter):
    """Log lines for people: ``level message (request id)``."""

    def format(self, record: logging.LogRecord) -> str:
        name = REQUEST_ID.get()
        return f"{record.levelname.lower():7} {super().format(record)}{f' ({name})' if name else ''}"


class JsonLines(logging.Formatter):
    """Log lines for machines: one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": REQUEST_ID.get(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def start_logging(level: str, form: str) -> None:
    """Log to standard error: our messages from ``level`` on, those of libraries from ``warning`` on.

    Args:
        form: ``text`` or ``json``.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for own in ("tureen_serve", "tureen_core"):
        logging.getLogger(own).setLevel(level.upper())
