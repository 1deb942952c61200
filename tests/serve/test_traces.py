"""Traces over HTTP, read by a receiver of OTLP: from the caller's span to the batch."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from serve.artifacts import build
from serve.border import application, served, wait_for_models
from serve.counting import CountingEngine
from starlette.testclient import TestClient

from tureen_serve.app import create_app
from tureen_serve.inference.lane import LaneRun
from tureen_serve.settings import SettingsError, load_settings
from tureen_serve.trace_marks import TraceMark

if not os.environ.get("CI"):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra `otel` is not installed")

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ITEM = {"prompt": "why do leaves fall?", "candidates": ["the wind is lazy", "nobody knows"]}


@contextmanager
def receiving() -> Iterator[tuple[str, list[Any]]]:
    """The address of a receiver on this machine, and the spans that it has received."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
        server.shutdown()
        thread.join()


def attributes(span: Any) -> dict[str, Any]:
    """The attributes of a span."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_trace_goes_from_the_callers_span_down_to_the_batch(tmp_path: Path) -> None:
    with receiving() as (endpoint, spans):
        app = create_app(load_settings(build(tmp_path), traces=endpoint))
        with TestClient(app) as client:
            wait_for_models(app)
            headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "x-request-id": "mine"}
            reply = client.post("/v1/score", json={"items": [ITEM], "rewards": ["helpful"]}, headers=headers)
            assert reply.status_code == 200
            client.get("/health/live", headers=headers)
    batches = [span for span in spans if span.name.startswith("batch ")]
    (request,) = (span for span in spans if span not in batches)
    told = attributes(request)
    assert (request.name, request.trace_id.hex(), request.parent_span_id.hex()) == ("POST /v1/score", TRACE, SPAN)
    assert (told["http.route"], told["http.response.status_code"], told["tureen.request_id"]) == (
        "/v1/score",
        200,
        "mine",
    )
    assert sum(attributes(batch)["tureen.texts"] for batch in batches) == 2
    for batch in batches:
        assert (batch.trace_id, batch.parent_span_id) == (request.trace_id, request.span_id)
        assert [link.span_id for link in batch.links] == [request.span_id]
        assert request.start_time_unix_nano <= batch.start_time_unix_nano <= batch.end_time_unix_nano
    assert "leaves" not in str(spans)


def test_a_refused_request_has_a_span_with_its_fault() -> None:
    with receiving() as (endpoint, spans), served(CountingEngine(), traces=endpoint) as client:
        client.post("/v1/score", json={"items": [ITEM], "rewards": ["nobody"]}, headers={"traceparent": "rubbish"})
    (span,) = spans
    assert attributes(span)["error.type"] == "unknown_reward"
    assert span.parent_span_id == b""


def test_a_batch_of_several_requests_has_links_to_all() -> None:
    from opentelemetry.trace import SpanContext, TraceFlags

    from tureen_serve.traces import Traces

    marks = [TraceMark(SpanContext(7 + n, 9 + n, True, TraceFlags(flag))) for n, flag in enumerate((1, 0, 1))]
    with receiving() as (endpoint, spans):
        traces = Traces(endpoint)
        traces.note_batch(LaneRun("smol", 3, 30, 0, 0, 0.5, tuple(marks)))
        traces.note_batch(LaneRun("smol", 3, 30, 0, 0, 0.5, (marks[1],)))  # its caller does not sample
        traces.note_batch(LaneRun("smol", 3, 30, 0, 0, 0.5))
        traces._provider.shutdown()
    (span,) = spans
    assert [int.from_bytes(link.span_id) for link in span.links] == [9, 11]
    assert span.end_time_unix_nano - span.start_time_unix_nano == 500_000_000


def test_a_receiver_that_is_away_costs_no_request() -> None:
    with served(CountingEngine(), traces="http://127.0.0.1:9/v1/traces") as client:
        assert client.post("/v1/score", json={"items": [ITEM]}).status_code == 200


def test_the_extra_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"pip install 'tureen\[otel\]'"):
        application(CountingEngine(), traces="http://127.0.0.1:9/v1/traces")


def test_an_address_must_be_a_url() -> None:
    with pytest.raises(SettingsError, match="traces"):
        load_settings(traces="localhost:4318")
