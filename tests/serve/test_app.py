"""The application: it answers while the engine loads, says why if that fails, and closes what it opened."""

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.border import Caller, running, served
from serve.counting import CountingEngine
from starlette.testclient import TestClient
from waiting import block_until, wait_until

from tureen_serve.app import OPENAI_ERRORS, create_app, load_engine
from tureen_serve.inference.lane import ignore_run
from tureen_serve.runtimes.load import LoadError
from tureen_serve.settings import RewardEntry, SettingsError, load_settings


async def status(app: Any, path: str) -> tuple[int | None, str]:
    caller = await Caller(app, path).done()
    return caller.status, caller.text


def test_it_answers_while_the_engine_loads() -> None:
    async def work() -> None:
        release = threading.Event()
        seen: list[str] = []

        def slow(settings: Any, observe: Any) -> CountingEngine:
            seen.append(threading.current_thread().name)
            release.wait(60)
            return CountingEngine()

        app = create_app(load_settings(), slow)
        async with app.router.lifespan_context(app):
            await wait_until(lambda: seen)
            assert (await status(app, "/health/live"))[0] == 200
            code, text = await status(app, "/health/ready")
            assert (code, "model_loading" in text) == (503, True)
            assert (
                await Caller(app, "/v1/score", {"items": [{"prompt": "a", "candidates": ["b"]}]}).done()
            ).status == 503
            assert "tureen_ready 0.0" in (await status(app, "/metrics"))[1]
            release.set()
            await wait_until(lambda: app.state.server.engine is not None)
            assert (await status(app, "/health/ready"))[0] == 200
        assert seen == ["loading"]

    asyncio.run(work())


def test_why_loading_came_to_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        def failing(settings: Any, observe: Any) -> CountingEngine:
            raise LoadError("helpful stands on another base")

        app = create_app(load_settings(), failing)
        async with app.router.lifespan_context(app):
            await wait_until(lambda: app.state.server.failure)
            code, text = await status(app, "/health/ready")
            assert (code, "helpful stands on another base" in text) == (503, True)
            assert (await status(app, "/health/live"))[0] == 200

    asyncio.run(work())
    assert "could not be loaded" in caplog.text


def test_the_engine_is_closed_at_the_end() -> None:
    class Closing(CountingEngine):
        closed = False

        async def close(self) -> None:
            self.closed = True

    async def work() -> None:
        engine = Closing()
        async with running(engine):
            assert not engine.closed
        assert engine.closed

    asyncio.run(work())


def test_it_can_end_while_it_loads() -> None:
    async def work() -> None:
        begun, release = threading.Event(), threading.Event()

        def slow(settings: Any, observe: Any) -> CountingEngine:
            begun.set()
            release.wait(60)
            return CountingEngine()

        app = create_app(load_settings(), slow)
        async with app.router.lifespan_context(app):
            await wait_until(begun.is_set)
        assert app.state.server.engine is None
        release.set()

    asyncio.run(work())


def test_the_loader_gets_the_settings_and_an_observer() -> None:
    async def work() -> None:
        got: list[Any] = []

        def loader(settings: Any, observe: Any) -> CountingEngine:
            got.extend([settings, observe])
            return CountingEngine()

        settings = load_settings(dtype="float32")
        app = create_app(settings, loader)
        async with app.router.lifespan_context(app):
            await wait_until(lambda: app.state.server.engine)
        assert got == [settings, app.state.server.metrics.observe]

    asyncio.run(work())


def test_keys_that_cannot_be_used_stop_it_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("short")
    with pytest.raises(SettingsError, match="line 1"):
        create_app(load_settings(keys=tmp_path / "keys"), lambda *_: CountingEngine())


def test_artifacts_that_are_none_are_named(tmp_path: Path) -> None:
    settings = load_settings(rewards=[RewardEntry(path=tmp_path)], runtime="transformers")
    with pytest.raises(LoadError, match=r"is no model: it has neither tureen\.json"):
        load_engine(settings, ignore_run)


def test_two_servers_count_apart() -> None:
    async def work() -> None:
        async with running(CountingEngine()) as one, running(CountingEngine()) as other:
            await status(one, "/v1/models")
            assert 'route="/v1/models"' in (await status(one, "/metrics"))[1]
            assert 'route="/v1/models"' not in (await status(other, "/metrics"))[1]

    asyncio.run(work())


# --------------------------------------------------------------------------- OpenAI's statuses

BAD_BODIES = [b"", b"{", b"[]", b"{}", b"null", b'{"mood": 1}']
READING = [
    ("GET", "/v1/models", 200),
    ("GET", "/v1/models/none", 404),
    ("GET", "/v1/files", 200),
    ("GET", "/v1/files?limit=0", 400),
    ("GET", "/v1/files?purpose=none", 400),
    ("GET", "/v1/files/none", 404),
    ("DELETE", "/v1/files/none", 404),
    ("GET", "/v1/files/none/content", 404),
    ("GET", "/v1/batches", 200),
    ("GET", "/v1/batches?limit=x", 400),
    ("GET", "/v1/batches/none", 404),
    ("POST", "/v1/batches/none/cancel", 404),
    ("GET", "/v1/responses/none", 404),
    ("DELETE", "/v1/responses/none", 404),
    ("POST", "/v1/embeddings", 404),
]
WRITING = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/files", "/v1/batches")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with served(batches={"enabled": True, "folder": tmp_path_factory.mktemp("batches")}) as found:
        block_until(lambda: found.get("/v1/files").status_code != 503)
        yield found


def test_no_route_of_openai_is_forgotten_here() -> None:
    asked = {path.partition("?")[0].replace("none", "{}") for _, path, _ in READING} | set(WRITING)
    assert asked == {re.sub(r"{\w+}", "{}", path) for path in OPENAI_ERRORS}


@pytest.mark.parametrize(("method", "path", "status"), READING)
def test_openais_routes_answer_as_openai(client: TestClient, method: str, path: str, status: int) -> None:
    reply = client.request(method, path)
    assert reply.status_code == status, reply.text
    if status != 200:
        assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", WRITING)
@pytest.mark.parametrize("media", ["application/json", "text/plain", "multipart/form-data; boundary=x"])
def test_every_bad_body_is_a_400_on_openais_routes(client: TestClient, path: str, media: str) -> None:
    for content in BAD_BODIES:
        reply = client.post(path, content=content, headers={"content-type": media})
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error"), content


@pytest.mark.parametrize("path", ["/v1/score", "/v1/preferences"])
def test_our_own_routes_tell_a_bad_value_from_a_bad_body(client: TestClient, path: str) -> None:
    assert client.post(path, json={"items": []}).status_code == 422
    assert client.post(path, content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.post(path, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
