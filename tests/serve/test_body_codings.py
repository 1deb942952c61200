"""Compressed bodies: the same answers as without, on every kind of route, in bounded work."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serve.border import Caller, listening, running, served
from serve.counting import CountingEngine
from starlette.testclient import TestClient
from waiting import block_until

from tureen.errors import InvalidRequest, PayloadTooLarge, UnsupportedMedia
from tureen_serve.body_codings import PIECE, UnpackedBody, read_coding

BODIES = {
    "/v1/score": {"items": [{"prompt": "hi", "candidates": ["calm", "funny"]}]},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "seed": 1, "preferences": {"calm": 1}},
    "/tei/rerank?model=calm": {"query": "hi", "texts": ["calm", "funny"]},
    "/rerank": {"model": "calm", "query": "hi", "documents": ["calm"]},
}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with served() as found:
        yield found


def forget_ids(reply: Any) -> Any:
    return {**reply, "id": None, "created": None} if isinstance(reply, dict) else reply


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("Deflate", zlib.compress)]
)
@pytest.mark.parametrize("path", BODIES)
def test_a_compressed_body_has_the_answer_of_the_plain_one(
    client: TestClient, path: str, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    plain = client.post(path, json=BODIES[path])
    content = pack(json.dumps(BODIES[path]).encode())
    packed = client.post(path, content=content, headers={**JSON, "content-encoding": f"identity, {coding}"})
    assert (plain.status_code, packed.status_code) == (200, 200), packed.text
    assert forget_ids(packed.json()) == forget_ids(plain.json())


def test_a_compressed_body_comes_over_a_socket_in_parts() -> None:
    content = gzip.compress(json.dumps(BODIES["/v1/score"]).encode())

    def parts() -> Iterator[bytes]:
        for start in range(0, len(content), 7):
            yield content[start : start + 7]

    with listening(CountingEngine()) as address:
        for body in (content, parts()):
            reply = httpx.post(f"{address}/v1/score", content=body, headers={**JSON, "content-encoding": "gzip"})
            assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/score", 415), ("/tei/rerank", 415), ("/v1/chat/completions", 400), ("/rerank", 400)]
)
@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "gzip,br"])
def test_other_codings_are_refused_with_those_that_are_taken(
    client: TestClient, path: str, status: int, coding: str
) -> None:
    reply = client.post(path, content=b"x", headers={**JSON, "content-encoding": coding})
    assert reply.status_code == status
    assert "gzip" in reply.text


PACKED = gzip.compress(json.dumps(BODIES["/v1/score"]).encode())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{}", "cannot be unpacked"),
        (PACKED[:-9], "ends too early"),
        (PACKED[:-1], "ends too early"),
        (PACKED[:-8] + bytes(8), "cannot be unpacked"),
        (PACKED + b"x", "goes on after its end"),
        (PACKED * 2, "goes on after its end"),
        (zlib.compress(b"{}"), "cannot be unpacked"),
    ],
)
def test_a_damaged_stream_is_a_400(client: TestClient, content: bytes, says: str) -> None:
    reply = client.post("/v1/score", content=content, headers={**JSON, "content-encoding": "gzip"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_encoding")
    assert says in reply.json()["error"]["message"]
    assert client.post("/v1/score", json=BODIES["/v1/score"]).status_code == 200


def test_a_request_without_a_body_may_have_the_header(client: TestClient) -> None:
    assert client.get("/v1/models", headers={"content-encoding": "gzip"}).status_code == 200
    told = client.post("/v1/score", content=b"", headers={**JSON, "content-encoding": "gzip"})
    assert told.status_code == client.post("/v1/score", content=b"", headers=JSON).status_code == 400


# --------------------------------------------------------------------------- the bound


def read(content: bytes, limit: int, coding: str = "gzip", size: int = 2**16) -> tuple[list[bytes], UnpackedBody]:
    """The pieces of a body that comes in parts of ``size`` bytes."""
    parts = [content[start : start + size] for start in range(0, len(content), size)] or [b""]
    inbox = [
        {"type": "http.request", "body": part, "more_body": place < len(parts)} for place, part in enumerate(parts, 1)
    ]

    async def receive() -> Any:
        return inbox.pop(0) if inbox else {"type": "http.disconnect"}

    async def work() -> list[bytes]:
        pieces, more = [], True
        while more:
            message = await body.receive()
            pieces.append(message["body"])
            more = message["more_body"]
        assert (await body.receive())["type"] == "http.disconnect"
        return pieces

    body = UnpackedBody(receive, coding, limit)
    return asyncio.run(work()), body


@pytest.mark.parametrize("size", [1, 1000, 10**9])
@pytest.mark.parametrize("length", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 1_000_003])
def test_a_body_of_any_length_is_unpacked_in_small_pieces(length: int, size: int) -> None:
    content = bytes(number % 251 for number in range(length))
    pieces, _ = read(gzip.compress(content), 10**7, size=size)
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= PIECE


def test_the_bound_is_exact_and_nothing_is_unpacked_beyond_it() -> None:
    bomb = gzip.compress(bytes(100_000))
    assert len(bomb) < 1000
    pieces, _ = read(bomb, 100_000)
    assert sum(map(len, pieces)) == 100_000
    with pytest.raises(PayloadTooLarge, match="unpacks to over 99999 bytes"):
        read(bomb, 99_999)
    huge = gzip.compress(bytes(50 * 2**20))
    made: list[int] = []
    body = UnpackedBody(_once(huge), "gzip", 10**6)

    async def work() -> None:
        while True:
            made.append(len((await body.receive())["body"]))

    with pytest.raises(PayloadTooLarge):
        asyncio.run(work())
    assert sum(made) <= 10**6
    assert body._made == 10**6 + 1


def _once(content: bytes) -> Any:
    inbox = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> Any:
        return inbox.pop()

    return receive


def test_bytes_that_unpack_to_nothing_are_counted_too() -> None:
    packer = zlib.compressobj(wbits=31)
    empty = b"".join(packer.flush(zlib.Z_FULL_FLUSH) + packer.compress(b"") for _ in range(3))
    block = b"\x00\x00\x00\xff\xff"  # a stored block of no bytes
    with pytest.raises(PayloadTooLarge, match="over 1000 bytes"):
        read(empty + block * 300, 1000, size=100)


def test_a_caller_who_leaves_is_seen_and_other_work_goes_on() -> None:
    async def work() -> None:
        async with running(CountingEngine(), limits={"body_bytes": 40 * 2**20}) as app:
            bomb = Caller(app, "/v1/score", gzip.compress(bytes(30 * 2**20)), {"content-encoding": "gzip"})
            turns = 0
            while not bomb.task.done():
                turns += 1
                await asyncio.sleep(0)
            assert (bomb.status, turns > 30 * 2**20 / PIECE) == (400, True)
            half = Caller(app, "/v1/score", b"", {"content-encoding": "gzip"})
            half.inbox.get_nowait()
            half.inbox.put_nowait({"type": "http.request", "body": PACKED[:20], "more_body": True})
            half.hang_up()
            await half.done()
            assert half.status is None

    asyncio.run(work())


def test_all_codings_are_read_from_all_headers() -> None:
    name = b"content-encoding"
    assert read_coding([(b"x", b"gzip")]) is None
    assert read_coding([(name, b""), (name, b" Identity ")]) is None
    assert read_coding([(name, b"identity"), (name, b"GZIP")]) == "gzip"
    with pytest.raises(UnsupportedMedia, match="gzip, deflate is not supported"):
        read_coding([(name, b"gzip"), (name, b"deflate")])


def test_a_compressed_upload_goes_to_the_disk_under_its_own_limit(tmp_path: Path) -> None:
    form = httpx.Request("POST", "http://x", files={"file": ("in.jsonl", b"x" * 90_000)}, data={"purpose": "batch"})
    large = httpx.Request("POST", "http://x", files={"file": ("in.jsonl", b"x" * 10**6)}, data={"purpose": "batch"})
    options = {"enabled": True, "folder": tmp_path / "data", "poll_seconds": 0.05, "file_bytes": 100_000}
    with served(CountingEngine(), batches=options, limits={"body_bytes": 2000}) as client:
        block_until(lambda: client.get("/v1/files").status_code != 503)
        told = {"content-encoding": "gzip"}
        sent = {**told, "content-type": form.headers["content-type"]}
        made = client.post("/v1/files", content=gzip.compress(form.read()), headers=sent)
        assert made.json()["bytes"] == 90_000
        assert client.get(f"/v1/files/{made.json()['id']}/content").content == b"x" * 90_000
        sent = {**told, "content-type": large.headers["content-type"]}
        reply = client.post("/v1/files", content=gzip.compress(large.read()), headers=sent)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "payload_too_large")
        damaged = client.post("/v1/files", content=gzip.compress(large.read())[:-20], headers=sent)
        assert damaged.status_code in (400, 413)
        assert len(client.get("/v1/files").json()["data"]) == 1


def test_the_error_names_the_coding() -> None:
    with pytest.raises(InvalidRequest, match="as deflate"):
        read(b"nothing of the kind", 1000, coding="deflate")
