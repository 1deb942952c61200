"""Health, metrics and the first page, while loading, ready, failed and leaving."""

from serve.border import served
from serve.counting import RUNTIME, CountingEngine

TYPED = {"/v1/chat/completions": "post", "/v1/completions": "post", "/tei/health": "get", "/vllm/health": "get"}


def test_alive_and_ready() -> None:
    with served() as client:
        assert client.get("/health/live").json() == {"status": "live"}
        assert client.get("/health/ready").json() == {"status": "ready", "batches": "off"}
        health = client.get("/health").json()
    assert health["runtime"] == RUNTIME
    assert (health["rewards"], health["families"]) == (["calm", "funny"], ["words", "rigid"])


def test_an_engine_that_fails_is_not_ready_but_alive() -> None:
    engine = CountingEngine()
    engine.down = "reward calm, probe 3: 0.5 here, 0.1 in training"
    with served(engine) as client:
        assert client.get("/health/live").status_code == 200
        for path in ("/health/ready", "/health"):
            reply = client.get(path)
            assert reply.status_code == 503
            assert reply.json()["error"]["message"] == engine.down
            assert reply.json()["error"]["code"] == "not_ready"
            assert reply.headers["retry-after"] == "30"
        engine.down = None
        assert client.get("/health/ready").status_code == 200


def test_an_engine_that_is_dead_is_not_alive() -> None:
    engine = CountingEngine()
    engine.dead = "tiny has died: the accelerator has failed"
    body = {"items": [{"prompt": "hi", "candidates": ["calm"]}]}
    with served(engine) as client:
        for path in ("/health/live", "/health/ready", "/health"):
            reply = client.get(path)
            assert reply.status_code == 503
            assert (reply.json()["error"]["message"], reply.headers["retry-after"]) == (engine.dead, "10")
        reply = client.post("/v1/score", json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_dead")


def test_a_server_that_leaves_is_not_ready_and_still_answers() -> None:
    with served() as client:
        client.app.state.server.draining = True  # type: ignore[attr-defined]
        reply = client.get("/health/ready")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "draining")
        assert client.get("/health").status_code == 503
        body = {"items": [{"prompt": "hi", "candidates": ["calm"]}]}
        assert client.post("/v1/score", json=body).status_code == 200
        assert client.get("/v1/models").status_code == 200


def test_metrics_are_prometheus_text() -> None:
    with served() as client:
        reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert "tureen_ready 1.0" in reply.text


def test_the_first_page_names_every_route() -> None:
    with served() as client:
        page = client.get("/").json()
        paths = client.get("/openapi.json").json()["paths"]
    assert {line.split()[1] for line in page["routes"]} == set(paths)
    assert all(page["routes"].values())
    assert page["service"] == "tureen"


def test_answers_are_described_with_the_types_that_they_have() -> None:
    """Streams are events, and TEI's health has no body."""
    with served() as client:
        paths = client.get("/openapi.json").json()["paths"]
    types = {path: set(paths[path][verb]["responses"]["200"].get("content", {})) for path, verb in TYPED.items()}
    both = {"application/json", "text/event-stream"}
    assert types == {"/v1/chat/completions": both, "/v1/completions": both, "/tei/health": set(), "/vllm/health": set()}


def test_no_page_loads_scripts_from_elsewhere() -> None:
    with served() as client:
        assert client.get("/docs").status_code == 404
        assert client.get("/redoc").status_code == 404
