"""The application: it answers while the engine loads, says why if that fails, and closes what it opened."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from serve.border import Caller, running
from serve.counting import CountingEngine
from waiting import wait_until

from tureen_serve.app import create_app, load_engine
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
    with pytest.raises(LoadError, match=r"has no tureen\.json"):
        load_engine(settings, ignore_run)


def test_two_servers_count_apart() -> None:
    async def work() -> None:
        async with running(CountingEngine()) as one, running(CountingEngine()) as other:
            await status(one, "/v1/models")
            assert 'route="/v1/models"' in (await status(one, "/metrics"))[1]
            assert 'route="/v1/models"' not in (await status(other, "/metrics"))[1]

    asyncio.run(work())
