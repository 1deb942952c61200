"""Files and batches opened beside a server, which goes on where they cannot be had."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from serve.border import served
from serve.counting import CountingEngine
from waiting import block_until, wait_until

from tureen.errors import NotFound, Unavailable
from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.batches import batch_service
from tureen_serve.batches.batch_service import BatchService
from tureen_serve.batches.database import Database, StoreError
from tureen_serve.telemetry import Metrics


def batches(**options: Any) -> BatchService:
    return BatchService(BatchSettings(**options), BATCH_ENDPOINTS, CountingEngine, Metrics())


def state(ours: BatchService) -> str:
    return ours.state


def test_it_opens_and_closes(tmp_path: Path) -> None:
    async def work() -> None:
        ours = batches(folder=tmp_path / "data")
        with pytest.raises(Unavailable, match="is being opened"):
            ours.opened()
        assert state(ours) == "opening"
        await ours.open()
        assert state(ours) == "working"
        assert ours.opened().store.list_batches(1).data == []
        assert ours.opened().runner is not None
        await ours.close()

    asyncio.run(work())
    assert {path.name for path in (tmp_path / "data").iterdir()} >= {"batches.sqlite", "files"}
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_one_that_was_never_opened_is_closed(tmp_path: Path) -> None:
    asyncio.run(batches(folder=tmp_path / "data").close())
    assert not (tmp_path / "data").exists()


def test_a_server_that_takes_no_batches_makes_no_folder(tmp_path: Path) -> None:
    async def work() -> None:
        ours = batches(folder=tmp_path / "data", enabled=False)
        await ours.open()
        with pytest.raises(NotFound, match="`batches.enabled` is false"):
            ours.opened()
        assert state(ours) == "off"
        await ours.close()

    asyncio.run(work())
    assert not (tmp_path / "data").exists()


def test_one_that_leaves_the_work_to_others_has_no_runner(tmp_path: Path) -> None:
    async def work() -> None:
        ours = batches(folder=tmp_path, worker=False)
        opened = await ours.connect()
        assert opened.runner is None
        opened.wake()
        await ours.close()

    asyncio.run(work())


def test_what_cannot_be_opened_is_logged_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(batch_service, "AGAIN_SECONDS", 0.02)
    (tmp_path / "data").write_text("a file where the folder should be")
    tries: list[str] = []

    def counting(url: str) -> Database:
        tries.append(url)
        return Database(url)

    monkeypatch.setattr(batch_service, "Database", counting)

    async def work() -> None:
        ours = batches(folder=tmp_path / "data")
        trying = asyncio.create_task(ours.open())
        await wait_until(lambda: "no files and batches for now" in caplog.text)
        with pytest.raises(Unavailable, match="the server's log says why") as caught:
            ours.opened()
        assert str(tmp_path) not in caught.value.message
        await wait_until(lambda: len(tries) > 3)
        (tmp_path / "data").unlink()
        await trying
        assert ours.opened().store.list_batches(1).data == []
        await ours.close()

    asyncio.run(work())
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "`batches`" in errors[0].getMessage()
    assert str(tmp_path / "data") in caplog.text


def test_a_store_of_an_unknown_kind_is_told_to_whoever_connects(tmp_path: Path) -> None:
    async def work() -> None:
        ours = batches(folder=tmp_path, store="mysql://db/x")
        with pytest.raises(StoreError, match="mysql is not known"):
            await ours.connect()
        await ours.close()

    asyncio.run(work())


def test_online_traffic_does_not_need_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with served(CountingEngine(), batches={"enabled": True, "folder": tmp_path / "data"}) as client:
        assert client.get("/health/ready").status_code == 200
        items = {"items": [{"prompt": "hi", "candidates": ["calm"]}]}
        assert client.post("/v1/score", json=items).status_code == 200
        reply = client.get("/v1/batches")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
        assert "retry-after" in reply.headers


def test_so_is_what_fails_as_nobody_foresaw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def driver(url: str) -> None:
        raise RuntimeError("unable to locate credentials")

    monkeypatch.setattr(batch_service, "AGAIN_SECONDS", 0.02)

    async def work() -> None:
        ours = batches(folder=tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(batch_service, "FileStore", driver)
            trying = asyncio.create_task(ours.open())
            await wait_until(lambda: ours.state == "failing")
        await trying
        assert state(ours) == "working"
        await ours.close()

    asyncio.run(work())
    assert "unable to locate credentials" in caplog.text


def test_a_server_without_its_store_is_ready_and_says_that_batches_fail(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with served(CountingEngine(), batches={"enabled": True, "folder": tmp_path / "data"}) as client:
        block_until(lambda: client.get("/health/ready").json()["batches"] != "opening")
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "batches": "failing"})
        assert client.get("/health").json()["batches"] == "failing"
        assert "tureen_batches_failing 1.0" in client.get("/metrics").text
        body = {"items": [{"prompt": "hi", "candidates": ["calm"]}]}
        assert client.post("/v1/score", json=body).status_code == 200


def test_a_database_that_is_gone_is_told_by_a_server_that_runs_nothing(tmp_path: Path) -> None:
    options = {"enabled": True, "folder": tmp_path, "worker": False}
    with served(CountingEngine(), batches=options) as client:
        database = tmp_path / "batches.sqlite"
        block_until(lambda: client.get("/health/ready").json()["batches"] == "working")
        assert client.get("/v1/batches").json()["data"] == []
        away = database.rename(tmp_path / "away")
        reply = client.get("/v1/batches")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "batches": "failing"})
        assert not database.exists()
        away.rename(database)
        assert client.get("/v1/batches").json()["data"] == []
        assert client.get("/health/ready").json()["batches"] == "working"


def test_uploads_have_so_many_places() -> None:
    ours = batches(uploads=1)
    with ours.uploading():
        with pytest.raises(Unavailable, match=r"1 files are being uploaded") as caught, ours.uploading():
            pass
        assert caught.value.retry_after == 5
    with ours.uploading():
        pass
