"""``client.files`` and ``client.batches`` of both clients against a real server."""

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from client.conftest import HASTY, Asynchronous, Blocking
from client.standin import StandIn, hang_up, keep_silent, refusal, work

from tureen import AsyncClient, Client, Conflict, ConnectionFailed, DeadlineExceeded, NotFound, Retries, Unprocessable
from tureen.atomic_files import replace_atomically
from tureen.wire import Batch, File, FileDeleted, InputLine, OutputLine

Make = Callable[..., Any]


class Both:
    """The resources of one client, called alike."""

    def __init__(self, face: Any) -> None:
        self.face = face

    def __getattr__(self, resource: str) -> Any:
        return Called(self.face, resource)


class Called:
    def __init__(self, face: Any, resource: str) -> None:
        self.face = face
        self.resource = getattr(face.client, resource)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.resource, name)
        if isinstance(self.face, Blocking):
            return method  # type: ignore[no-any-return]
        return lambda *args, **options: self.face.runner.run(method(*args, **options))

    def lines(self, file_id: str, **options: Any) -> list[str]:
        if isinstance(self.face, Blocking):
            with self.resource.content(file_id, **options) as content:
                return list(content)
        return self.face.runner.run(self._lines(file_id, **options))  # type: ignore[no-any-return]

    async def _lines(self, file_id: str, **options: Any) -> list[str]:
        async with await self.resource.content(file_id, **options) as content:
            return [line async for line in content]


@pytest.fixture(params=[Blocking, Asynchronous])
def make_both(request: pytest.FixtureRequest, standin: StandIn) -> Iterator[Make]:
    made = []

    def make_one(**options: Any) -> Both:
        made.append(request.param(standin.url, **{"retries": HASTY, "poll": 0.001, **options}))
        return Both(made[-1])

    yield make_one
    for face in made:
        face.end()


@pytest.fixture
def client(make_both: Make) -> Any:
    return make_both()


def line(number: int, **body: Any) -> dict[str, Any]:
    return {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/score", "body": {"n": number, **body}}


def begin(client: Any, *lines: dict[str, Any]) -> Batch:
    batch: Batch = client.batches.create(client.files.upload(lines).id, "/v1/score")
    return batch


# --------------------------------------------------------------------------- files


@pytest.mark.parametrize("form", ["path", "text of a path", "bytes", "opened", "bytes of an iterator", "text parts"])
def test_what_can_be_uploaded(client: Any, standin: StandIn, tmp_path: Path, form: str) -> None:
    path = tmp_path / "in.jsonl"
    content = b'{"a": "\xe2\x80\xa8"}\n{"b": 2}\n'
    path.write_bytes(content)
    sources = {
        "path": path,
        "text of a path": str(path),
        "bytes": content,
        "opened": io.BytesIO(content),
        "bytes of an iterator": iter([content[:7], content[7:]]),
        "text parts": content.decode().splitlines(keepends=True) and [content.decode()],
    }
    file = client.files.upload(sources[form])
    assert isinstance(file, File)
    assert (file.bytes, file.purpose) == (len(content), "batch")
    assert file.filename == ("in.jsonl" if "path" in form else "batch.jsonl")
    assert standin.jobs.files[file.id].content == content


def test_lines_may_be_dicts_or_wire_types(client: Any, standin: StandIn) -> None:
    typed = InputLine(custom_id="é", method="POST", url="/v1/score", body={"items": []})
    file = client.files.upload((each for each in (typed, line(2))), name="mine.jsonl", expires_after=3600)
    assert [json.loads(each) for each in standin.jobs.files[file.id].content.splitlines()] == [
        {"custom_id": "é", "method": "POST", "url": "/v1/score", "body": {"items": []}},
        line(2),
    ]
    assert (file.filename, file.expires_at) == ("mine.jsonl", 3601)


@pytest.mark.parametrize(
    ("parts", "message"),
    [([3], "a line must be bytes, a text or a dict, not int"), ([{"a": object()}], "object is not JSON")],
)
def test_what_is_no_line_is_not_sent(client: Any, standin: StandIn, parts: list[Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        client.files.upload(parts)
    assert standin.seen == []


def test_a_missing_file_is_not_sent(client: Any, standin: StandIn, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.files.upload(tmp_path / "none.jsonl")
    assert standin.seen == []


@pytest.mark.parametrize("source", ["path", "bytes", "iterator"])
def test_an_upload_that_failed_is_repeated_whole(client: Any, standin: StandIn, tmp_path: Path, source: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"{}\n" * 50_000)
    sources = {"path": tmp_path / "in.jsonl", "bytes": b"{}\n" * 50_000, "iterator": ("{}\n" for _ in range(50_000))}
    standin.fail(hang_up, refusal(503, "store_unavailable"))
    file = client.files.upload(sources[source])
    assert standin.jobs.files[file.id].content == b"{}\n" * 50_000
    assert len(standin.seen) == 3


def test_an_upload_tells_its_length_and_its_type(client: Any, standin: StandIn) -> None:
    client.files.upload(iter([b"{}\n"]))
    headers = standin.seen[0].headers
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    assert int(headers["content-length"]) == len(standin.seen[0].body)
    assert headers["user-agent"].startswith("tureen-python/")


def test_files_are_listed_over_all_pages(client: Any, standin: StandIn) -> None:
    standin.jobs.page = 2
    made = [client.files.upload(b"{}\n").id for _ in range(5)]
    standin.jobs.keep(b"", "output.jsonl", "batch_output")
    standin.seen.clear()
    assert [file.id for file in client.files.list(purpose="batch")] == made[::-1]
    assert len(standin.seen) == 3
    assert [file.id for file in client.files.list(purpose="batch", limit=3)] == made[:1:-1]
    assert len(client.files.list()) == 6


def test_a_file_is_got_and_deleted(client: Any) -> None:
    file = client.files.upload(b"{}\n")
    assert client.files.get(file.id) == file
    assert client.files.delete(file.id) == FileDeleted(id=file.id)
    for method in (client.files.get, client.files.delete, client.files.lines):
        with pytest.raises(NotFound, match="no such file"):
            method(file.id)


@pytest.mark.parametrize("method", ["get", "delete", "lines"])
def test_an_empty_id_is_not_all_of_them(client: Any, standin: StandIn, method: str) -> None:
    with pytest.raises(Exception, match="the id of the file or batch is empty"):
        getattr(client.files, method)("")
    assert standin.seen == []


def test_ids_are_no_paths(client: Any, standin: StandIn) -> None:
    with pytest.raises(NotFound):
        client.batches.get("batch?limit=1")
    assert standin.seen[0].path == "/v1/batches/batch%3Flimit=1"


def test_lines_end_where_json_lines_end(client: Any) -> None:
    lines = ['{"a": "one\u2028two\x85three\u2029"}', '{"b": "\r"}', "", "last"]
    file = client.files.upload("\n".join(lines).encode())
    assert client.files.lines(file.id) == lines
    assert client.files.lines(client.files.upload(b"").id) == []


def test_what_is_no_text_has_no_lines_and_can_be_saved(client: Any, tmp_path: Path) -> None:
    file = client.files.upload(b"\xff\xfe\n")
    with pytest.raises(Unprocessable, match="not UTF-8"):
        client.files.lines(file.id)
    assert client.files.save(file.id, tmp_path / "raw") == tmp_path / "raw"
    assert (tmp_path / "raw").read_bytes() == b"\xff\xfe\n"


def test_lines_that_break_off_are_an_error(client: Any, standin: StandIn) -> None:
    file = client.files.upload(b"{}\n")
    standin.fail(hang_up)
    with pytest.raises(ConnectionFailed, match="the connection to .* was lost"):
        client.files.lines(file.id)


def test_a_download_that_breaks_off_is_begun_again(client: Any, standin: StandIn, tmp_path: Path) -> None:
    file = client.files.upload(b"{}\n" * 1000)
    standin.fail(hang_up, refusal(503, "store_unavailable"))
    client.files.save(file.id, str(tmp_path / "out.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes() == b"{}\n" * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_download_that_fails_leaves_what_was_there(client: Any, standin: StandIn, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("before")
    standin.fail(*[hang_up] * 3)
    with pytest.raises(ConnectionFailed):
        client.files.save("file-0", tmp_path / "out.jsonl")
    with pytest.raises(NotFound):
        client.files.save("file-0", tmp_path / "out.jsonl")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.jsonl", "before")]


def test_a_place_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail(part: Path) -> None:
        part.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError), replace_atomically(tmp_path / "a") as part:
        fail(part)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError), replace_atomically(tmp_path / "a"):
        pass


# --------------------------------------------------------------------------- batches


def test_a_batch_is_made_and_waited_for(client: Any) -> None:
    seen: list[Batch] = []
    batch = begin(client, line(1), line(2, fail=True), line(3))
    assert isinstance(batch, Batch)
    assert (batch.status, batch.endpoint, batch.completion_window) == ("validating", "/v1/score", "24h")
    ended = client.batches.wait(batch.id, on_progress=seen.append)
    assert ended == seen[-1]
    assert [each.status for each in seen] == ["in_progress", "in_progress", "completed"]
    assert [each.request_counts.completed + each.request_counts.failed for each in seen] == [0, 2, 3]
    good = [OutputLine.model_validate_json(each) for each in client.files.lines(ended.output_file_id)]
    [bad] = [OutputLine.model_validate_json(each) for each in client.files.lines(ended.error_file_id)]
    assert [each.custom_id for each in good] == ["line-1", "line-3"]
    assert (bad.custom_id, bad.refusal and bad.refusal.message) == ("line-2", "told to fail")


def test_what_a_batch_may_be_told(client: Any, standin: StandIn) -> None:
    file = client.files.upload([line(1)])
    expires = {"anchor": "created_at", "seconds": 3600}
    client.batches.create(file.id, "/v1/score", "90m", metadata={"run": "7"}, output_expires_after=expires)
    assert standin.seen[-1].json == {
        "input_file_id": file.id,
        "endpoint": "/v1/score",
        "completion_window": "90m",
        "metadata": {"run": "7"},
        "output_expires_after": expires,
    }


@pytest.mark.parametrize(
    ("endpoint", "options", "param"),
    [
        ("/v1/embeddings", {}, "endpoint"),
        ("/v1/score", {"completion_window": "soon"}, "completion_window"),
        ("/v1/score", {"metadata": {"k" * 65: "v"}}, "metadata"),
        ("/v1/score", {"priority": "low"}, "priority"),
    ],
)
def test_bad_fields_are_named_and_nothing_is_sent(
    client: Any, standin: StandIn, endpoint: str, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(Unprocessable) as caught:
        client.batches.create("file-0", endpoint, **options)
    assert (caught.value.param or "").startswith(param)
    assert standin.seen == []


async def _told_nobody(message: Any) -> None:
    pass


async def lose_the_answer(scope: Any, receive: Any, send: Any) -> None:
    """Do what is asked, and break the connection instead of saying so."""
    await work(scope, receive, _told_nobody)
    await hang_up(scope, receive, send)


def test_a_creation_whose_answer_was_lost_makes_one_batch(client: Any, standin: StandIn) -> None:
    file = client.files.upload([line(1)])
    standin.fail(lose_the_answer)
    batch = client.batches.create(file.id, "/v1/score")
    assert list(standin.jobs.batches) == [batch.id]
    first, second = (seen.headers["idempotency-key"] for seen in standin.seen[1:])
    assert first == second


def test_two_calls_make_two_batches_and_one_key_makes_one(client: Any, standin: StandIn) -> None:
    file = client.files.upload([line(1)])
    made = [client.batches.create(file.id, "/v1/score").id for _ in range(2)]
    made += [client.batches.create(file.id, "/v1/score", idempotency_key="mine").id for _ in range(2)]
    assert made == ["batch_0", "batch_1", "batch_2", "batch_2"]
    assert [seen.headers.get("idempotency-key") for seen in standin.seen[3:]] == ["mine", "mine"]


def test_a_request_that_is_being_answered_is_asked_again(client: Any, standin: StandIn) -> None:
    file = client.files.upload([line(1)])
    standin.fail(refusal(409, "idempotency_in_flight", retry_after="0.001"))
    assert client.batches.create(file.id, "/v1/score").id == "batch_0"
    standin.fail(refusal(409, "fingerprint_mismatch"))
    with pytest.raises(Conflict):
        client.batches.create(file.id, "/v1/score")


def test_batches_are_listed_over_all_pages(client: Any, standin: StandIn) -> None:
    standin.jobs.page = 2
    made = [begin(client, line(1)).id for _ in range(5)]
    assert [batch.id for batch in client.batches.list()] == made[::-1]
    assert [batch.id for batch in client.batches.list(limit=4)] == made[:0:-1]


def test_a_batch_is_cancelled(client: Any) -> None:
    batch = begin(client, line(1), line(2), line(3))
    client.batches.get(batch.id)
    client.batches.get(batch.id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    ended = client.batches.wait(batch.id)
    assert (ended.status, ended.request_counts.completed, ended.request_counts.failed) == ("cancelled", 2, 1)
    with pytest.raises(Conflict, match="has ended"):
        client.batches.cancel(batch.id)


def test_a_batch_that_cannot_be_run_says_why(client: Any) -> None:
    broken = {**line(2), "body": {}}
    ended = client.batches.wait(begin(client, line(1), broken).id)
    assert ended.status == "failed"
    assert [(error.line, error.message) for error in ended.errors.data] == [(2, "body: is empty")]


def test_waiting_ends_at_the_deadline_and_the_batch_goes_on(make_both: Make, standin: StandIn) -> None:
    client = make_both(poll=60.0)
    batch = begin(client, line(1), line(2), line(3))
    with pytest.raises(DeadlineExceeded, match=r"is in progress, 0 of 3 lines done after 5 s; it continues"):
        client.batches.wait(batch.id, deadline=5.0)
    assert standin.jobs.batches[batch.id]["status"] == "in_progress"


def test_waiting_outlasts_a_server_that_is_away(make_both: Make, standin: StandIn) -> None:
    client = make_both(retries=Retries(limit=0))
    batch = begin(client, line(1))
    standin.fail(work, hang_up, refusal(503, "store_unavailable"), hang_up)
    assert client.batches.wait(batch.id).status == "completed"


def test_waiting_for_nothing_ends_at_once(client: Any, standin: StandIn) -> None:
    with pytest.raises(NotFound, match="no such batch"):
        client.batches.wait("batch_9")
    assert len(standin.seen) == 1


def test_silence_ends_at_the_deadline(client: Any, standin: StandIn) -> None:
    standin.fail(keep_silent)
    with pytest.raises(DeadlineExceeded):
        client.batches.get("batch_0", deadline=0.05)


def test_both_clients_offer_the_same() -> None:
    with Client() as one:
        other = AsyncClient()
        for name in ("files", "batches"):
            offered = [
                {each for each in dir(getattr(client, name)) if not each.startswith("_")} for client in (one, other)
            ]
            assert offered[0] == offered[1]
        asyncio.run(other.close())
