"""Lines of output and error files, and the files put together in the order of the input."""

import json
from pathlib import Path
from typing import Any

import pytest

from tureen.errors import ServerFault, Unavailable
from tureen.wire import BatchStatus, OutputLine
from tureen_serve.batches.endpoints import LineAnswer
from tureen_serve.batches.file_store import FileStore
from tureen_serve.batches.records import Chunk, Lease, LineRange, StoredFile
from tureen_serve.batches.results import build_result, remove_result, write_batch_files, write_result

GOOD = LineAnswer(200, {"data": [1.5], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})
BAD = LineAnswer.refusal(ServerFault("it broke", param="items[0]"))
INPUT = b"".join(json.dumps({"custom_id": f"n{number}"}).encode() + b"\n" for number in range(6))
SIZE = len(INPUT) // 6


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    found = FileStore(str(tmp_path))
    found.write("uploads/in", [INPUT])
    return found


def has(files: FileStore, key: str) -> bool:
    try:
        return next(files.read(key)) is not None
    except Unavailable:
        return False


def lease(fence: int = 1, outcome: BatchStatus = "completed") -> Lease:
    return Lease("batch_x", "/v1/score", "finalizing", outcome, StoredFile("uploads/in", len(INPUT), ""), fence)


def chunk(number: int, key: str | None = None, completed: int = 0, failed: int = 0) -> Chunk:
    return Chunk(number, LineRange(2 * number + 1, 2, 2 * number * SIZE, 2 * SIZE), key, completed, failed)


def ran(files: FileStore, number: int, *answers: LineAnswer) -> Chunk:
    """A chunk that is done, its result written."""
    made = build_result([f"n{2 * number + place}" for place in range(len(answers))], answers)
    return chunk(
        number, write_result(files, lease(number + 5), chunk(number), made), made.tally.completed, made.tally.failed
    )


def lines(raw: bytes) -> list[OutputLine]:
    return [OutputLine.model_validate_json(line) for line in raw.splitlines()]


def names(files: FileStore, stored: StoredFile | None) -> list[str]:
    assert stored is not None
    raw = b"".join(files.read(stored.key))
    assert len(raw) == stored.bytes
    return [line.custom_id for line in lines(raw)]


def test_answers_are_told_apart_and_counted() -> None:
    made = build_result(["a", "b", "c"], [GOOD, BAD, GOOD])
    first, second = lines(made.good)
    (failed,) = lines(made.bad)
    assert (first.custom_id, second.custom_id, failed.custom_id) == ("a", "c", "b")
    assert (made.tally.completed, made.tally.failed) == (2, 1)
    assert (made.tally.input_tokens, made.tally.output_tokens) == (14, 4)


def test_a_line_is_openais() -> None:
    (line,) = build_result(["a"], [GOOD]).good.splitlines()
    told: dict[str, Any] = json.loads(line)
    assert list(told) == ["id", "custom_id", "response", "error"]
    assert told["id"].startswith("batch_req_")
    assert told["error"] is None
    assert (told["response"]["status_code"], told["response"]["body"]) == (200, GOOD.body)
    assert told["response"]["request_id"].startswith("req_")


def test_an_error_carries_the_routes_body_with_its_own_request_id() -> None:
    (line,) = lines(build_result(["a"], [BAD]).bad)
    assert line.response is not None
    assert line.response.status_code == 500
    assert line.response.body["error"]["param"] == "items[0]"
    assert line.response.body["request_id"] == line.response.request_id
    assert line.refusal is not None
    assert line.refusal.message == "it broke"
    assert BAD.body["request_id"] is None


def test_text_stays_readable_and_numbers_finite() -> None:
    assert "żółw" in build_result(["żółw"], [GOOD]).good.decode()
    made = build_result(["a", "b"], [LineAnswer(200, {"data": float("nan")}), GOOD])
    assert (made.tally.completed, made.tally.failed) == (1, 1)
    (failed,) = lines(made.bad)
    assert failed.response is not None
    assert (failed.custom_id, failed.response.status_code) == ("a", 500)


def test_each_lease_writes_under_a_key_of_its_own(files: FileStore) -> None:
    made = build_result(["n0", "n1"], [GOOD, BAD])
    keys = {write_result(files, lease(fence), chunk(0), made) for fence in (1, 2)}
    assert len(keys) == 2
    assert all(has(files, key + suffix) for key in keys for suffix in (".good", ".bad"))
    for key in keys:
        remove_result(files, key)
    assert not any(has(files, key + suffix) for key in keys for suffix in (".good", ".bad"))


def test_a_result_without_errors_has_no_file_of_them(files: FileStore) -> None:
    key = write_result(files, lease(), chunk(0), build_result(["n0"], [GOOD]))
    assert (has(files, key + ".good"), has(files, key + ".bad")) == (True, False)


def test_files_are_put_together_in_the_order_of_the_input(files: FileStore) -> None:
    last, first, middle = ran(files, 2, GOOD, BAD), ran(files, 0, GOOD, GOOD), ran(files, 1, BAD, GOOD)
    output, errors = write_batch_files(files, lease(), [first, middle, last])
    assert names(files, output) == ["n0", "n1", "n3", "n4"]
    assert names(files, errors) == ["n2", "n5"]


def test_a_file_that_would_be_empty_is_none(files: FileStore) -> None:
    output, errors = write_batch_files(files, lease(), [ran(files, 0, GOOD, GOOD)])
    assert errors is None
    assert names(files, output) == ["n0", "n1"]
    assert write_batch_files(files, lease(), []) == (None, None)


@pytest.mark.parametrize(("outcome", "code"), [("expired", "batch_expired"), ("cancelled", "batch_cancelled")])
def test_lines_that_were_not_run_say_why(files: FileStore, outcome: BatchStatus, code: str) -> None:
    output, errors = write_batch_files(files, lease(outcome=outcome), [chunk(0), ran(files, 1, BAD, GOOD), chunk(2)])
    assert names(files, output) == ["n3"]
    assert names(files, errors) == ["n0", "n1", "n2", "n4", "n5"]
    assert errors is not None
    unrun = lines(b"".join(files.read(errors.key)))[0]
    assert unrun.response is None
    assert unrun.error is not None
    assert unrun.error.code == code


def test_a_result_that_is_lost_is_no_file_without_it(files: FileStore) -> None:
    """A store that has lost what the database counts must not give an output that lacks lines."""
    lost = ran(files, 0, GOOD, BAD)
    assert lost.key is not None
    files.remove(lost.key + ".bad")
    with pytest.raises(Unavailable):
        write_batch_files(files, lease(), [lost])
