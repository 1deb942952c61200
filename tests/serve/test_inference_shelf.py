"""The shelf finds folders that come and go, not more often than it may, and says once why one is not offered."""

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import tiny

from tureen_serve.inference.shelf import SCAN_SECONDS, Shelf


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    base = tiny.base(folder / "base")
    for seed, name in enumerate(("calm", "dry", "funny")):
        tiny.reward(folder / name, base, name, seed)
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "calm", tmp_path / "calm")
    return tmp_path


def run(root: Path, use: Callable[[Shelf, Callable[[], Awaitable[None]]], Awaitable[None]]) -> None:
    """Use a shelf, and a function that moves its clock on and lets it look again."""
    clock = Clock()
    shelf = Shelf(root, clock=clock)

    async def look() -> None:
        clock.now += SCAN_SECONDS
        await shelf.refresh()

    async def whole() -> None:
        await use(shelf, look)

    asyncio.run(whole())


def test_folders_come_change_and_go(root: Path, made: Path) -> None:
    async def use(shelf: Shelf, look: Callable[[], Awaitable[None]]) -> None:
        assert set(shelf.sources) == {"calm"}
        calm = shelf.sources["calm"]
        shutil.copytree(made / "dry", root / "dry")
        await look()
        assert set(shelf.sources) == {"calm", "dry"}
        assert shelf.sources["calm"] is calm
        assert not shelf.has_replaced(calm)
        (root / "calm/README.md").write_text("newer")
        await look()
        assert shelf.has_replaced(calm)
        dry = shelf.sources["dry"]
        shutil.rmtree(root / "dry")
        await look()
        assert set(shelf.sources) == {"calm"}
        assert not shelf.has_replaced(dry)  # it has gone, and nothing has its place
        shutil.copytree(made / "dry", root / "elsewhere")
        await look()
        assert shelf.sources["dry"].folder.name == "elsewhere"
        assert shelf.has_replaced(dry)

    run(root, use)


def test_the_root_is_read_at_most_once_in_a_while(root: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, scans = Clock(), []
    shelf = Shelf(root, clock=clock)

    def scan(*_: object) -> list[object]:
        scans.append(clock.now)
        return []

    monkeypatch.setattr("tureen_serve.inference.shelf.list_sources", scan)

    async def many() -> None:
        for _ in range(3):
            await asyncio.gather(*(shelf.refresh() for _ in range(20)))
            clock.now += 0.4 * SCAN_SECONDS
        assert scans == []
        await asyncio.gather(*(shelf.refresh() for _ in range(20)))

    asyncio.run(many())
    assert len(scans) == 1
    assert shelf.sources == {}


def test_two_folders_with_one_name_are_both_refused_and_a_mended_one_is_offered(root: Path, made: Path) -> None:
    async def use(shelf: Shelf, look: Callable[[], Awaitable[None]]) -> None:
        calm = shelf.sources["calm"]
        shutil.copytree(made / "calm", root / "calm-v2")
        await look()
        assert shelf.sources == {}
        assert "two rewards are called 'calm', in calm and calm-v2" in shelf.refused["calm"]
        assert shelf.has_replaced(calm)
        shutil.rmtree(root / "calm-v2")
        await look()
        assert (set(shelf.sources), shelf.refused) == ({"calm"}, {})
        assert not shelf.has_replaced(calm)

    run(root, use)


def test_names_of_the_start_are_not_offered_and_not_refused(root: Path, made: Path) -> None:
    shutil.copytree(made / "dry", root / "dry")
    shelf = Shelf(root, {"calm"})
    assert (set(shelf.sources), shelf.refused) == ({"dry"}, {})  # the server itself serves calm
    assert Shelf(root, (), {"dry"}).refused.keys() == {"dry"}


def test_why_a_folder_is_not_offered_is_told_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = root / "calm/adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:50])

    async def use(shelf: Shelf, look: Callable[[], Awaitable[None]]) -> None:
        for _ in range(3):
            await look()
        assert shelf.sources == {}
        assert len(caplog.messages) == 1
        assert "calm: adapter_model.safetensors is not complete" in caplog.messages[0]
        weights.write_bytes(whole[:60])  # still copied
        await look()
        assert len(caplog.messages) == 2
        weights.write_bytes(whole)
        await look()
        assert set(shelf.sources) == {"calm"}
        assert len(caplog.messages) == 2

    with caplog.at_level(logging.WARNING, "tureen_serve"):
        run(root, use)


def test_a_root_that_cannot_be_read_for_a_while_keeps_its_models(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def use(shelf: Shelf, look: Callable[[], Awaitable[None]]) -> None:
        away = root.with_name("away")
        root.rename(away)
        await look()
        await look()
        assert set(shelf.sources) == {"calm"}
        assert len(caplog.messages) == 1
        assert "the rewards root cannot be read" in caplog.messages[0]
        away.rename(root)
        await look()
        assert set(shelf.sources) == {"calm"}

    with caplog.at_level(logging.WARNING, "tureen_serve"):
        run(root, use)
