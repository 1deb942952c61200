"""Whatever the reason and the route: a 429 or 503 says in ``Retry-After`` when to come again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.border import served
from serve.counting import CountingEngine
from serve.keys import bear, make_entry, write_entries
from serve.route_bodies import DIALECTS, SCORING, WRITING
from starlette.routing import Route
from starlette.testclient import TestClient

from tureen.errors import Unavailable
from tureen_serve.admission import InFlight
from tureen_serve.batches.batch_service import BatchService
from tureen_serve.dialects import ERROR_BUILDERS
from tureen_serve.security.scopes import PAGE_FILES
from tureen_serve.telemetry import QUIET

BODIES = {**SCORING, **DIALECTS, **WRITING}
ENGINE = [*SCORING, *WRITING]
STORE = ("/v1/files", "/v1/batches")


@pytest.fixture(scope="module")
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture(scope="module")
def client(engine: CountingEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("state")
    with served(engine, aliases={"default": "calm"}, batches={"enabled": True, "folder": folder}) as found:
        yield found


def ask_all(client: TestClient, headers: dict[str, str] | None = None) -> dict[tuple[str, str], Any]:
    """The replies of all routes by method and path, but those of health, metrics and the page's files."""
    routes = [route for route in client.app.routes if isinstance(route, Route)]  # type: ignore[attr-defined]
    pairs = [(method, route.path) for route in routes for method in sorted(route.methods or ())]
    return {
        (method, path): client.request(method, path, json=BODIES.get(path, {}), headers=headers or {})
        for method, path in pairs
        if path not in QUIET and path != PAGE_FILES
    }


def test_every_route_tells_of_what_every_route_may_answer(client: TestClient) -> None:
    ours = {"400", "401", "403", "413", "429", "431", "500", "503", "504"}
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, told in methods.items():
            missing = ours - set(told["responses"])
            assert not missing or (path in ERROR_BUILDERS and "431" not in missing), (method, path, missing)
            model = told["responses"]["431"]["content"]["application/json"]["schema"]["$ref"]
            assert model.endswith("/ErrorReply"), path


def test_what_all_routes_answer_is_in_the_document(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    known = client.get("/openapi.json").json()["paths"]
    asked = [ask_all(client, {"x-request-timeout-ms": "no number"}), ask_all(client, {"content-length": "99999999999"})]
    monkeypatch.setattr(InFlight, "__len__", lambda _: 10**6)
    for replies in (*asked, ask_all(client)):
        for (method, path), reply in replies.items():
            if path in known:
                verb = "get" if method == "HEAD" else method.lower()
                assert str(reply.status_code) in known[path][verb]["responses"], (method, path)


def check(reply: Any, what: object) -> None:
    assert reply.status_code in (429, 503), (what, reply.status_code, reply.text)
    assert 1 <= int(reply.headers["retry-after"]) <= 60, what


def test_where_the_quota_is_used_up(tmp_path: Path) -> None:
    key, entry = make_entry("loop", quota={"requests_per_minute": 1})
    with served(keys=write_entries(tmp_path / "keys", entry)) as client:
        assert client.get("/v1/models", headers=bear(key)).status_code == 200
        replies = ask_all(client, bear(key))
        assert len(replies) > 60
        for what, reply in replies.items():
            assert reply.status_code == 429, what
            check(reply, what)


def test_where_too_many_requests_are_in_flight(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InFlight, "__len__", lambda _: 10**6)
    for what, reply in ask_all(client).items():
        check(reply, what)


@pytest.mark.parametrize("code", ["queue_full", "engine_dead", "models_busy", "draining"])
@pytest.mark.parametrize("path", ENGINE)
def test_where_the_engine_cannot(client: TestClient, engine: CountingEngine, path: str, code: str) -> None:
    engine.broken = Unavailable("not now", code=code)
    try:
        check(client.post(path, json=BODIES[path]), path)
        if path in WRITING:
            check(client.post(path, json=BODIES[path] | {"stream": True}), path)
    finally:
        engine.broken = None


def test_while_models_are_loading_or_cannot_be_loaded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    server = client.app.state.server  # type: ignore[attr-defined]
    monkeypatch.setattr(server, "engine", None)
    for failure in (None, "the models could not be loaded: no such folder"):
        monkeypatch.setattr(server, "failure", failure)
        for path in ENGINE:
            check(client.post(path, json=BODIES[path]), path)
        check(client.get("/health/ready"), "ready")
        check(client.get("/v1/models"), "models")


def test_where_the_process_must_end(
    client: TestClient, engine: CountingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "dead", "tiny has died")
    for path in ("/health/ready", "/health/live"):
        check(client.get(path), path)


def test_where_the_store_cannot_be_used(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise Unavailable("the store cannot be used", code="store_unavailable")

    monkeypatch.setattr(BatchService, "opened", fail)
    replies = {what: reply for what, reply in ask_all(client).items() if what[1].startswith(STORE)}
    assert len(replies) >= 8
    for what, reply in replies.items():
        check(reply, what)
