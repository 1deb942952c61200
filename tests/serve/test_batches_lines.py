"""The lines of an input file: what is refused, on which line and why, and where chunks are cut."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen.errors import InvalidRequest
from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS
from tureen_serve.batches.lines import (
    MAX_ERRORS,
    ChunkCutter,
    InputCheck,
    InputLimits,
    check_input,
    read_custom_id,
    read_request_line,
    split_lines,
)

BOUNDS = InputLimits(lines=1000, line_bytes=2000, chunk_lines=4, chunk_bytes=10_000)
SCORE = {"items": [{"prompt": "hi", "candidates": ["a", "b"]}]}
CHAT = {"model": "words", "messages": [{"role": "user", "content": "hi"}]}


def line(name: str = "a", body: Any = SCORE, url: str = "/v1/score", **more: Any) -> bytes:
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body} | more).encode() + b"\n"


def checked(*lines: bytes, endpoint: str = "/v1/score", bounds: InputLimits = BOUNDS) -> InputCheck:
    return check_input([b"".join(lines)], endpoint, bounds)


def refused(body: Any, endpoint: str) -> InvalidRequest:
    """The error of a line that passes the check of its file."""
    raw = line(body=body, url=endpoint)
    assert checked(raw, endpoint=endpoint).errors == []
    with pytest.raises(InvalidRequest) as caught:
        read_request_line(raw, endpoint, BATCH_ENDPOINTS[endpoint].body, 2000)
    return caught.value


def test_good_lines_are_counted_and_hashed() -> None:
    lines = [line(f"n{number}") for number in range(10)]
    found = checked(*lines)
    assert found.errors == []
    assert [piece.lines for piece in found.pieces] == [4, 4, 2]
    assert [piece.first_line for piece in found.pieces] == [1, 5, 9]
    assert found.digest == hashlib.sha256(b"".join(lines)).hexdigest()


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/score", SCORE),
        ("/v1/preferences", SCORE | {"format": "ranking"}),
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/responses", {"input": "hi"}),
    ],
)
def test_every_endpoint_takes_its_own_bodies(endpoint: str, body: Any) -> None:
    assert checked(line(body=body, url=endpoint), endpoint=endpoint).errors == []
    assert read_request_line(line(body=body, url=endpoint), endpoint, BATCH_ENDPOINTS[endpoint].body, 2000)
    assert refused({"nonsense": 1}, endpoint).code == "invalid_value"


@pytest.mark.parametrize(
    ("raw", "code", "param", "says"),
    [
        (b"\n", "empty_file", None, "the file is empty"),
        (b"{\n", "invalid_json", None, "the line is not JSON"),
        (b'{"a": NaN}\n', "invalid_json", None, "NaN is not JSON"),
        (b'{"a": 1, "a": 2}\n', "invalid_json", "a", "is twice in one object"),
        (b"\xff\n", "invalid_json", None, "not UTF-8"),
        (b"[" * 99 + b"\n", "invalid_json", None, "the line is"),
        (b"[]\n", "invalid_value", None, "valid dictionary"),
        (line() * 2, "duplicate_custom_id", "custom_id", "'a' is also used by another line"),
        (line(name=""), "invalid_value", "custom_id", "at least 1 item"),
        (line(name="x" * 257), "invalid_value", "custom_id", "256"),
        (line(name="\ud800"), "invalid_value", "custom_id", "lone surrogate"),
        (line(method="GET"), "invalid_value", "method", "'POST'"),
        (line(url="/v1/preferences"), "mismatched_endpoint", "url", "the batch goes to /v1/score"),
        (line(priority="batch"), "invalid_value", "priority", "is not a field"),
        (line(body=None), "invalid_value", "body", "valid dictionary"),
        (line(body={"items": [{"prompt": "x" * 2000, "candidates": ["a"]}]}), "line_too_long", None, "over 2000 bytes"),
    ],
)
def test_a_bad_line_is_told(raw: bytes, code: str, param: str | None, says: str) -> None:
    error = checked(raw).errors[0]
    assert (error.code, error.param) == (code, param)
    assert says in (error.message or "")


def test_answers_are_not_streamed_into_a_file() -> None:
    error = refused(CHAT | {"stream": True}, "/v1/chat/completions")
    assert (error.code, error.param) == ("invalid_value", "stream")
    assert "leave `stream` out" in error.message
    whole = line(body=CHAT | {"stream": False}, url="/v1/chat/completions")
    assert read_request_line(whole, "/v1/chat/completions", BATCH_ENDPOINTS["/v1/chat/completions"].body, 2000)


def test_what_openai_has_and_we_do_not_is_told_as_the_route_tells_it() -> None:
    error = refused(CHAT | {"audio": {"voice": "alloy"}}, "/v1/chat/completions")
    assert (error.code, error.param) == ("unsupported_parameter", "audio")


def test_a_field_of_a_response_has_its_own_name() -> None:
    assert refused({"input": "hi", "previous_response_id": "resp_1"}, "/v1/responses").param == "previous_response_id"
    assert refused({"input": "hi", "text": {"format": {"type": "xml"}}}, "/v1/responses").param == "text.format.type"


@pytest.mark.parametrize(("body", "param"), [({}, "items"), (SCORE | {"rewards": [1]}, "rewards[0]")])
def test_a_bad_body_is_an_error_of_its_line_and_names_what_the_route_names(body: Any, param: str) -> None:
    assert refused(body, "/v1/score").param == param


def test_every_bad_line_is_told_with_its_number() -> None:
    found = checked(line("a"), b"{\n", line("b"), line("a"), line("c", url="/v1/x"))
    assert [(error.line, error.code) for error in found.errors] == [
        (2, "invalid_json"),
        (4, "duplicate_custom_id"),
        (5, "mismatched_endpoint"),
    ]


def test_no_more_is_told_than_anybody_reads() -> None:
    found = checked(*[b"{\n"] * 500)
    assert [error.line for error in found.errors] == list(range(1, MAX_ERRORS + 1))


def test_a_file_may_be_empty_or_too_long() -> None:
    (error,) = checked(b"").errors
    assert (error.code, error.line) == ("empty_file", None)
    bounds = InputLimits(lines=3, line_bytes=2000, chunk_lines=4, chunk_bytes=10_000)
    assert checked(*[line(f"n{number}") for number in range(3)], bounds=bounds).errors == []
    (error,) = checked(*[line(f"n{number}") for number in range(9)], bounds=bounds).errors
    assert (error.code, error.line) == ("too_many_lines", 4)


def test_the_last_line_may_have_no_end_and_ends_may_be_windows() -> None:
    assert checked(line("a"), line("b").rstrip()).errors == []
    assert checked(line("a").rstrip() + b"\r\n", line("b").rstrip() + b"\r\n").errors == []


def test_a_line_without_end_is_not_held_in_memory() -> None:
    given: list[int] = []

    def parts() -> Any:
        for _ in range(10_000):
            given.append(1)
            yield b"x" * 1000

    (error,) = check_input(parts(), "/v1/score", BOUNDS).errors
    assert (error.code, error.line) == ("line_too_long", 1)
    assert len(given) == 3


@given(st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")), max_size=8), st.integers(1, 9))
def test_lines_come_out_of_parts_as_they_went_in(lines: list[bytes], size: int) -> None:
    whole = b"".join(each + b"\n" for each in lines)
    parts = [whole[start : start + size] for start in range(0, len(whole), size)]
    found = list(split_lines(parts, 300))
    assert b"".join(found).rstrip() == whole.rstrip()
    assert [each.strip() for each in found] == [each.strip() for each in lines if each.strip()]


def test_blank_lines_and_a_byte_order_mark_are_nothing() -> None:
    given = [b"\xef\xbb\xbf" + line("a"), b"\r\n", b"  \n", line("b"), b"\n", b"{\n", b"\n", b"\n"]
    found = checked(*given)
    assert [error.line for error in found.errors] == [6]
    assert sum(piece.lines for piece in found.pieces) == 3
    assert checked(b"\n", b" \n").errors[0].code == "empty_file"


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_chunks_hold_every_line_once_and_never_more_than_they_may(lengths: list[int]) -> None:
    cutter = ChunkCutter(InputLimits(lines=99, line_bytes=99, chunk_lines=7, chunk_bytes=60))
    for length in lengths:
        cutter.add(length)
    pieces = cutter.pieces()
    line = start = 0
    for piece in pieces:
        assert (piece.first_line, piece.start) == (line + 1, start)
        assert piece.length == sum(lengths[line : line + piece.lines])
        assert piece.lines <= 7
        assert piece.length <= 60
        line, start = line + piece.lines, start + piece.length
    assert line == len(lengths)


def test_a_line_larger_than_a_chunk_is_one_by_itself() -> None:
    cutter = ChunkCutter(InputLimits(lines=9, line_bytes=99, chunk_lines=7, chunk_bytes=10))
    for length in (3, 50, 3, 3):
        cutter.add(length)
    assert [piece.lines for piece in cutter.pieces()] == [1, 1, 2]


def test_a_line_is_read_again_as_it_was_checked() -> None:
    body = BATCH_ENDPOINTS["/v1/score"].body
    found = read_request_line(line("seven"), "/v1/score", body, 2000)
    assert (found.custom_id, read_custom_id(line("seven"))) == ("seven", "seven")
    assert isinstance(found.body, body)
    with pytest.raises(InvalidRequest, match="over 10 bytes"):
        read_request_line(line("seven"), "/v1/score", body, 10)
