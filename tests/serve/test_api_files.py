"""``/v1/files``: uploads that go to the disk as they come, pages, content, deletion."""

import asyncio
import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.border import Caller, running, served
from serve.counting import CountingEngine
from starlette.testclient import TestClient
from waiting import block_until, wait_until

BATCH = {"purpose": "batch"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with opened(folder) as found:
        yield found


def opened(folder: Path, **options: Any) -> Any:
    told = {"enabled": True, "folder": folder, "poll_seconds": 0.05, **options}
    return served(CountingEngine(), batches=told, limits={"body_bytes": 2000})


def upload(client: TestClient, content: bytes = b"{}\n", name: str = "in.jsonl", form: Any = BATCH) -> Any:
    return client.post("/v1/files", files={"file": (name, content)}, data=BATCH | form)


def wait(client: TestClient) -> TestClient:
    block_until(lambda: client.get("/v1/files").status_code != 503)
    return client


def error(reply: Any) -> tuple[int, str, str | None]:
    told = reply.json()["error"]
    return reply.status_code, told["code"], told["param"]


def test_a_file_is_uploaded_and_read_back(client: TestClient) -> None:
    wait(client)
    made = upload(client, b"one\ntwo\n").json()
    assert (made["object"], made["bytes"], made["filename"], made["purpose"]) == ("file", 8, "in.jsonl", "batch")
    assert made["status"] == "processed"
    assert client.get(f"/v1/files/{made['id']}").json() == made
    content = client.get(f"/v1/files/{made['id']}/content")
    assert (content.content, content.headers["content-length"]) == (b"one\ntwo\n", "8")
    assert content.headers["content-type"] == "application/octet-stream"


def test_an_empty_file_is_a_file(client: TestClient) -> None:
    made = upload(wait(client), b"").json()
    assert client.get(f"/v1/files/{made['id']}/content").content == b""


def test_an_upload_may_be_larger_than_other_bodies_and_is_not_held_in_memory(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolled: list[bool] = []
    real = tempfile.SpooledTemporaryFile.rollover

    def spy(file: Any) -> None:
        rolled.append(True)
        real(file)

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", spy)
    made = upload(wait(client), b"x" * 3_000_000)
    assert made.json()["bytes"] == 3_000_000
    assert rolled
    assert client.post("/v1/score", json={"items": [], "x": "x" * 3000}).status_code == 413


def test_an_upload_without_room_may_come_again(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    wait(client)

    def full(file: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile.SpooledTemporaryFile, "rollover", full)
        refused = upload(client, b"x" * 3_000_000)
    assert error(refused) == (503, "store_unavailable", None)
    assert refused.headers["retry-after"] == "30"
    assert upload(client, b"x" * 3_000_000).status_code == 200


def test_only_so_many_are_taken_at_once(folder: Path) -> None:
    whole = (
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n--x--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}

    async def work() -> None:
        async with running(CountingEngine(), batches={"enabled": True, "folder": folder, "uploads": 2}) as app:
            await wait_until(lambda: app.state.batches.state == "working")

            def begin(first: bytes) -> Caller:
                caller = Caller(app, "/v1/files", first, headers)
                caller.inbox.get_nowait()
                caller.inbox.put_nowait({"type": "http.request", "body": first, "more_body": True})
                return caller

            slow = [begin(whole[:40]) for _ in range(2)]
            await wait_until(lambda: all(caller.inbox.empty() for caller in slow))
            third = await Caller(app, "/v1/files", whole, headers).done()
            assert (third.status, third.error["code"], third.headers["retry-after"]) == (503, "queue_full", "5")
            assert "`batches.uploads`" in third.error["message"]
            slow[0].inbox.put_nowait({"type": "http.request", "body": whole[40:], "more_body": False})
            slow[1].hang_up()
            assert [(await caller.done()).status for caller in slow] == [200, 400]
            assert (await Caller(app, "/v1/files", whole, headers).done()).status == 200

    asyncio.run(work())


def test_it_may_not_be_larger_than_its_own_limit(folder: Path) -> None:
    with opened(folder, file_bytes=100_000) as client:
        assert upload(wait(client), b"x" * 100_000).status_code == 200
        assert error(upload(client, b"x" * 100_001)) == (413, "payload_too_large", "file")
        assert error(upload(client, b"x" * 300_000)) == (413, "payload_too_large", None)
        assert len(client.get("/v1/files").json()["data"]) == 1
        assert len(list((folder / "files" / "uploads").iterdir())) == 1


def test_so_may_not_one_that_does_not_say_how_large_it_is(folder: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(300):
            yield b"x" * 1000

    with opened(folder, file_bytes=100_000) as client:
        headers = {"content-type": "multipart/form-data; boundary=x"}
        reply = wait(client).post("/v1/files", content=parts(), headers=headers)
        assert error(reply) == (413, "payload_too_large", None)


@pytest.mark.parametrize(
    ("name", "kept"), [("../../etc/passwd", "passwd"), ("a b.jsonl", "a b.jsonl"), ("x" * 999, "x" * 255)]
)
def test_a_name_is_a_name_and_no_path(client: TestClient, folder: Path, name: str, kept: str) -> None:
    assert upload(wait(client), name=name).json()["filename"] == kept
    (stored,) = (folder / "files" / "uploads").iterdir()
    assert len(stored.name) == 32


def test_a_form_without_what_is_needed_is_refused(client: TestClient) -> None:
    wait(client)
    assert error(upload(client, form={"purpose": "fine-tune"})) == (400, "invalid_value", "purpose")
    assert error(client.post("/v1/files", files={"other": b"x"}, data=BATCH)) == (400, "invalid_value", "file")
    assert error(client.post("/v1/files", files={"x": b"x"}, data=BATCH | {"file": "x"})) == (
        400,
        "invalid_value",
        "file",
    )
    assert error(client.post("/v1/files", json=BATCH)) == (400, "unsupported_media_type", None)
    broken = client.post("/v1/files", content=b"no form", headers={"content-type": "multipart/form-data; boundary=x"})
    assert broken.status_code == 400
    unbounded = client.post("/v1/files", content=b"x", headers={"content-type": "multipart/form-data"})
    assert error(unbounded)[:2] == (400, "invalid_request")


def test_a_file_goes_when_it_says(client: TestClient) -> None:
    wait(client)
    form = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "7200"}
    made = upload(client, form=form).json()
    assert made["expires_at"] - made["created_at"] == 7200
    assert upload(client).json()["expires_at"] - made["created_at"] >= 30 * 86400
    for bad, param in (
        ({"expires_after[seconds]": "7200"}, "expires_after.anchor"),
        (form | {"expires_after[seconds]": "60"}, "expires_after.seconds"),
        (form | {"expires_after[anchor]": "last_active"}, "expires_after.anchor"),
    ):
        assert error(upload(client, form=bad)) == (400, "invalid_value", param)


def test_files_are_listed_in_pages(client: TestClient) -> None:
    wait(client)
    names = [upload(client, name=f"{number}.jsonl").json()["id"] for number in range(3)]
    page = client.get("/v1/files", params={"limit": 2}).json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (names[:0:-1], True)
    rest = client.get("/v1/files", params={"limit": 2, "after": page["last_id"]}).json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (names[:1], False)
    assert [each["id"] for each in client.get("/v1/files?order=asc").json()["data"]] == names
    assert client.get("/v1/files?purpose=batch_output").json()["data"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=x", "order=up", "purpose=vision"])
def test_a_page_that_cannot_be_is_refused_by_name(client: TestClient, query: str) -> None:
    assert error(wait(client).get(f"/v1/files?{query}")) == (400, "invalid_value", query.split("=")[0])


def test_a_deleted_file_is_gone(client: TestClient, folder: Path) -> None:
    made = upload(wait(client)).json()["id"]
    assert client.delete(f"/v1/files/{made}").json() == {"id": made, "object": "file", "deleted": True}
    for reply in (
        client.get(f"/v1/files/{made}"),
        client.get(f"/v1/files/{made}/content"),
        client.delete(f"/v1/files/{made}"),
    ):
        assert error(reply) == (404, "file_not_found", "file_id")
    assert list((folder / "files" / "uploads").iterdir()) == []


def test_a_file_whose_bytes_are_gone_is_an_error_before_the_answer_begins(client: TestClient, folder: Path) -> None:
    made = upload(wait(client)).json()["id"]
    (stored,) = (folder / "files" / "uploads").iterdir()
    stored.unlink()
    assert error(client.get(f"/v1/files/{made}/content")) == (503, "store_unavailable", None)


def test_a_server_may_take_none() -> None:
    with served(CountingEngine(), batches={"enabled": False}) as client:
        assert error(upload(client)) == (404, "batches_disabled", None)
        assert error(client.get("/v1/batches")) == (404, "batches_disabled", None)


def test_the_schema_tells_of_the_form(client: TestClient) -> None:
    form = client.get("/openapi.json").json()["paths"]["/v1/files"]["post"]["requestBody"]["content"]
    assert set(form["multipart/form-data"]["schema"]["required"]) == {"file", "purpose"}
