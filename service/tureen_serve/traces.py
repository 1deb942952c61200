"""Traces of OpenTelemetry: a span for each request, in its caller's trace, and one for each batch of a scorer.

The packages are the extra ``otel``. Without the setting ``traces`` nothing of this runs. The sampler and the attributes
of the resource are set by OpenTelemetry's own environment variables, as ``OTEL_TRACES_SAMPLER``.
"""

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from tureen_serve.inference.daemon_thread import run_in_daemon_thread
from tureen_serve.inference.lane import LaneRun
from tureen_serve.inference.pooled_model import ModelEvent
from tureen_serve.log_lines import CALLER, REQUEST_ID
from tureen_serve.settings import SettingsError
from tureen_serve.telemetry import METHODS, QUIET, App, Message, Metrics, Receive, Scope, Send
from tureen_serve.trace_marks import TRACE_MARK, TraceMark

CARRIED = {b"traceparent", b"tracestate"}
CLOSING_SECONDS = 3  # for spans that were not sent when the server ends


class Traces:
    """Makes spans, and sends them to a receiver of OTLP over HTTP in a thread. If it is away, only spans are lost.

    Args:
        endpoint: the receiver's URL, as ``http://127.0.0.1:4318/v1/traces``.

    Raises:
        SettingsError: the extra ``otel`` is not installed.
    """

    def __init__(self, endpoint: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise SettingsError(f"traces: {error}; install it with `pip install 'tureen[otel]'`") from error
        resource = Resource.create({"service.name": "tureen", "service.version": version("tureen")})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("tureen_serve")

    def start_request(self, scope: Scope) -> Any:
        """Start the span of a request. Its parent is the caller's span, where the headers name one."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carried = {str(name, "latin-1"): str(value, "latin-1") for name, value in scope["headers"] if name in CARRIED}
        parent = TraceContextTextMapPropagator().extract(carried)
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        attributes = {"http.request.method": method, "tureen.request_id": REQUEST_ID.get() or ""}
        return self._tracer.start_span(method, context=parent, kind=SpanKind.SERVER, attributes=attributes)

    def end_request(self, span: Any, scope: Scope, status: int | None) -> None:
        """End the span of a request.

        Args:
            status: that of the reply; None if the caller left before it.
        """
        from opentelemetry.trace import StatusCode

        route = getattr(scope.get("route"), "path", None)
        if route is not None:
            span.update_name(f"{scope['method']} {route}")
            span.set_attribute("http.route", route)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(StatusCode.ERROR)
        if fault := scope.get("tureen.fault"):
            span.set_attribute("error.type", fault)
        if caller := CALLER.get():
            span.set_attribute("tureen.caller", caller)
        span.end()

    def note_batch(self, ran: object) -> None:
        """Make the span of a batch that has run, on its lane's thread.

        It is in the trace of one of its requests, and has links to all of them.
        """
        from opentelemetry.trace import Link, NonRecordingSpan, set_span_in_context

        if not isinstance(ran, LaneRun):
            return
        members = [mark.span for mark in ran.marks if mark.span.trace_flags.sampled]
        if not members:
            return
        end = time.time_ns()
        attributes = {"tureen.lane": ran.lane, "tureen.texts": ran.rows, "tureen.tokens": ran.tokens}
        span = self._tracer.start_span(
            f"batch {ran.lane}",
            context=set_span_in_context(NonRecordingSpan(members[0])),
            links=[Link(each) for each in members],
            attributes={**attributes, "tureen.cached_tokens": ran.cached, "tureen.failed_texts": ran.failed},
            start_time=end - int(ran.seconds * 1e9),
        )
        span.end(end)

    async def close(self) -> None:
        """Send what is left, for three seconds at most."""
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await run_in_daemon_thread(self._provider.shutdown)
        except TimeoutError:
            pass


class Tracing:
    """ASGI middleware: gives each request a span. Health and metrics have none.

    It stands inside of the middleware that names requests, and around all others.
    """

    def __init__(self, app: App, traces: Traces) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET:
            return await self._app(scope, receive, send)
        span = self._traces.start_request(scope)
        mark = TRACE_MARK.set(TraceMark(span.get_span_context()))
        status = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._traces.end_request(span, scope, status)
            TRACE_MARK.reset(mark)


def join_observers(metrics: Metrics, traces: Traces | None) -> Callable[[LaneRun | ModelEvent], None]:
    """Make one observer of the lanes for the metrics and, where there are any, the traces."""
    if traces is None:
        return metrics.observe

    def observe(ran: LaneRun | ModelEvent) -> None:
        metrics.observe(ran)
        traces.note_batch(ran)

    return observe
