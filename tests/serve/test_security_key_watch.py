"""A file of keys that changes while the server runs."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from serve.keys import KEY, OTHER, write_lines
from waiting import wait_until

from tureen_serve.security.key_watch import KeyWatch


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tureen_serve.security.key_watch.EVERY", 0.01)


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[KeyWatch]:
    watch = KeyWatch(path, CollectorRegistry())
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        assert not task.done(), "it goes on, whatever the file is"
        task.cancel()


def knows(watch: KeyWatch, key: str) -> bool:
    return watch.ring.find_caller(key.encode()) is not None


def refused(watch: KeyWatch) -> bool:
    return bool(watch._refused._value.get())


def test_a_new_file_replaces_the_keys(tmp_path: Path) -> None:
    async def run() -> None:
        async with watching(write_lines(tmp_path, KEY)) as watch:
            write_lines(tmp_path, OTHER)
            await wait_until(lambda: knows(watch, OTHER))
            assert not knows(watch, KEY)
            assert watch._known._value.get() == 1

    asyncio.run(run())


def test_the_exchanged_link_of_a_mounted_secret_is_seen_though_times_and_sizes_are_equal(tmp_path: Path) -> None:
    for name, key in (("..2027_1", KEY), ("..2027_2", OTHER)):
        (tmp_path / name).mkdir()
        os.utime(write_lines(tmp_path / name, key), (1, 1))
    (tmp_path / "..data").symlink_to("..2027_1")
    (tmp_path / "keys").symlink_to("..data/keys")

    async def run() -> None:
        async with watching(tmp_path / "keys") as watch:
            (tmp_path / "..data_tmp").symlink_to("..2027_2")
            (tmp_path / "..data_tmp").replace(tmp_path / "..data")
            await wait_until(lambda: knows(watch, OTHER))
            assert not knows(watch, KEY)

    asyncio.run(run())


@pytest.mark.parametrize("bad", ["", "keys: [", "short", None])
def test_a_file_that_cannot_be_used_keeps_the_old_keys_and_says_so_once(
    tmp_path: Path, bad: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        path = write_lines(tmp_path, KEY)
        async with watching(path) as watch:
            path.unlink() if bad is None else path.write_text(bad)
            await wait_until(lambda: refused(watch))
            assert knows(watch, KEY)
            write_lines(tmp_path, KEY)  # also the same file as before
            await wait_until(lambda: not refused(watch))
            assert knows(watch, KEY)

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    said = [record.getMessage() for record in caplog.records]
    assert len({*said}) == len(said)
    assert all("the keys from before stay" in each and KEY not in each for each in said)


def test_a_file_that_is_still_written_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path, KEY)
    half, whole = f"{KEY}\n{OTHER[:-4]}".encode(), f"{KEY}\n{OTHER}\n".encode()
    contents = iter([half, whole, half, whole])
    read = []

    def look(_: Path) -> bytes:
        read.append(next(contents, whole))
        return read[-1]

    async def run() -> None:
        async with watching(path) as watch:
            monkeypatch.setattr("tureen_serve.security.key_watch.read_key_file", look)
            await wait_until(lambda: knows(watch, OTHER) or knows(watch, OTHER[:-4]))
            assert knows(watch, OTHER)
            assert len(read) >= 5

    asyncio.run(run())
