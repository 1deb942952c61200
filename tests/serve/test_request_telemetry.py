"""Every request is counted under a route that the server has, and logged in one line without its text."""

import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi.routing import APIRoute
from serve.border import application, listening_app, served
from serve.counting import CountingEngine
from serve.scrapes import check_with_promtool, find_name_faults, read_samples, sample
from waiting import PATIENCE

from tureen_serve.telemetry import METHODS, UNMATCHED, UNPARSED

SECRET = "the-text-of-a-conversation"
KEY = "a-key-of-this-test"
SCORE = {"items": [{"prompt": SECRET, "candidates": ["calm calm", "funny"]}]}
CHAT = {"messages": [{"role": "user", "content": SECRET}]}
LIMITS = {"body_bytes": 4000, "header_bytes": 2000}


def send_bytes(address: str, sent: bytes) -> bytes:
    """Send bytes on a connection of their own, and return the reply."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        return connection.recv(65536)


def walk_server(address: str, name: str, routes: list[APIRoute]) -> None:
    """Call every route, well and badly, with ``name`` wherever a caller may choose a name."""
    bearer = {"authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=address, timeout=PATIENCE) as client:
        for route in routes:
            path = re.sub(r"{\w+}", name, route.path)
            for method in sorted(route.methods):
                client.request(method, path, headers=bearer)
                client.request(method, path)  # 401
            client.request("PATCH", path, headers=bearer)
            client.post(path, headers=bearer, content=b"x" * 5000)  # 413 or 405
        client.post("/v1/score", headers=bearer, json=SCORE)
        client.post("/v1/chat/completions", headers=bearer, json=CHAT)
        client.post("/v1/score", headers=bearer, json=SCORE | {"rewards": [name]})
        client.get(f"/{name}", headers=bearer)
        client.request(name.upper(), "/v1/score", headers=bearer)
    send_bytes(address, b"GET /v1/models HTTP/1.1\r\nx: " + b"y" * 3000 + b"\r\n\r\n")
    send_bytes(address, f"{name} is no HTTP\r\n\r\n".encode())


@pytest.fixture(scope="module")
def scrapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A scrape after a walk over all routes and refusals, and one after the same walk with other names."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    app = application(
        CountingEngine(), keys=keys, limits=LIMITS, batches={"enabled": True, "folder": keys.parent / "state"}
    )
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    with listening_app(app) as address:
        found = []
        for name in ("first-visitor", "second-visitor"):
            walk_server(address, name, routes)
            reply = httpx2.get(f"{address}/metrics", headers={"authorization": f"Bearer {KEY}"}, timeout=PATIENCE)
            found.append(reply.text)
        yield found


def test_scrape_keeps_the_rules_of_names(scrapes: list[str]) -> None:
    assert find_name_faults(scrapes[0]) == []
    check_with_promtool(scrapes[0])


def test_routes_are_templates_also_of_refusals(scrapes: list[str]) -> None:
    templates = {route.path for route in application(CountingEngine()).routes if isinstance(route, APIRoute)}
    counted = [each for each in read_samples(scrapes[0]) if each.name == "tureen_http_requests_total"]
    assert {each.labels["route"] for each in counted} == {*templates, UNMATCHED, UNPARSED}
    assert {each.labels["method"] for each in counted} <= {*METHODS, "other"}
    name = "tureen_http_requests_total"
    for status, route in [("401", "/v1/models/{name}"), ("405", "/v1/score"), ("413", "/v1/score")]:
        assert sample(scrapes[0], name, status=status, route=route) > 0
    assert sample(scrapes[0], name, route=UNMATCHED, status="404") > 0
    assert sample(scrapes[0], name, route=UNPARSED, status="431", method="other") == 1
    assert sample(scrapes[0], name, route=UNPARSED, status="400") == 2  # the unknown method too
    assert sample(scrapes[0], "tureen_admission_rejections_total", reason="headers_too_large") == 1
    assert sample(scrapes[0], "tureen_admission_rejections_total", reason="payload_too_large") > 1


def test_a_caller_makes_no_new_series(scrapes: list[str]) -> None:
    known = {(each.name, *sorted(each.labels.items())) for each in read_samples(scrapes[0])}
    new = [each for each in read_samples(scrapes[1]) if (each.name, *sorted(each.labels.items())) not in known]
    assert {each.labels.get("route") for each in new} <= {"/metrics"}  # the first scrape itself
    assert "visitor" not in "".join(scrapes)


def test_requests_are_counted_by_template_method_and_status() -> None:
    with served() as client:
        client.get("/v1/models/calm")
        client.get("/v1/models/nobody")
        client.get("/nowhere/at/all")
        client.request("BREW", "/v1/models")
        text = client.get("/metrics").text
    assert sample(text, "tureen_http_requests_total", route="/v1/models/{name}", status="200") == 1
    assert sample(text, "tureen_http_requests_total", route="/v1/models/{name}", status="404") == 1
    assert sample(text, "tureen_http_requests_total", route="unmatched", status="404") == 1
    assert sample(text, "tureen_http_requests_total", route="/v1/models", method="other", status="405") == 1
    assert sample(text, "tureen_http_request_duration_seconds_count", route="/v1/models/{name}") == 2
    assert "nobody" not in text
    assert "nowhere" not in text


@pytest.mark.parametrize("name", ["abc", "trace:1.2_3-4", "x" * 128])
def test_a_safe_request_id_is_kept(name: str) -> None:
    with served() as client:
        assert client.get("/health/live", headers={"x-request-id": name}).headers["x-request-id"] == name


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "a\tb", "é", "{}", "a;b"])
def test_an_unsafe_one_is_replaced(name: str) -> None:
    with served() as client:
        found = client.get("/health/live", headers={b"x-request-id": name.encode()}).headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f]{32}", found)


def test_every_reply_has_its_own_request_id() -> None:
    with served() as client:
        paths = ["/health/live", "/v1/models", "/nope", "/metrics"]
        names = {client.get(path).headers["x-request-id"] for path in paths}
        names.add(client.post("/v1/score", content=b"{").headers["x-request-id"])
    assert len(names) == 5


def test_one_line_for_each_request_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with served() as client, caplog.at_level(logging.INFO, "tureen_serve"):
        caplog.clear()
        client.post("/v1/score", json=SCORE)
        client.post("/v1/chat/completions", json=CHAT)
        client.get("/health/live")
    lines = [record for record in caplog.records if record.name == "tureen_serve.request_telemetry"]
    assert [line.facts["route"] for line in lines] == ["/v1/score", "/v1/chat/completions"]  # type: ignore[attr-defined]
    assert lines[0].facts["status"] == 200  # type: ignore[attr-defined]
    assert SECRET not in caplog.text


def test_a_refused_scrape_is_logged(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    with served(keys=keys) as client, caplog.at_level(logging.INFO, "tureen_serve"):
        caplog.clear()
        client.get("/metrics")
        client.get("/metrics", headers={"authorization": f"Bearer {KEY}"})
    (line,) = [record for record in caplog.records if record.name == "tureen_serve.request_telemetry"]
    facts = line.facts  # type: ignore[attr-defined]
    assert (facts["route"], facts["status"]) == ("/metrics", 401)
    assert 0 <= facts["first_byte_seconds"] <= facts["seconds"] + 0.001
    assert KEY not in caplog.text
