"""Input files as requests: OpenAI's form as it is, rows made into it, and what is said of anything else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tureen import InvalidRequest, Unprocessable
from tureen.batch_jobs.input_lines import detect_endpoint, find_line_number, read_lines, read_requests
from tureen.wire import ENDPOINTS, ChatRequest, CompletionRequest, Endpoint, InputLine, PreferencesRequest, ScoreRequest

TALK = [{"role": "user", "content": "Why?"}]
BODIES: dict[str, type[BaseModel]] = {
    "/v1/score": ScoreRequest,
    "/v1/preferences": PreferencesRequest,
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def made(folder: Path, to: Endpoint, *rows: Any) -> list[Any]:
    return [json.loads(line) for line in read_requests(written(folder, *rows), to)]


def request(name: str, url: str = "/v1/score", **body: Any) -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def test_requests_go_out_byte_for_byte(tmp_path: Path) -> None:
    odd = '{"url":"/v1/score", "custom_id":"\\u00e9",  "body":{"x":1e400,"y":1.0}, "method":"POST"}'
    path = written(tmp_path, odd, "", "  ", request("b"))
    assert list(read_requests(path, "/v1/score")) == [f"{odd}\n".encode(), f"{json.dumps(request('b'))}\n".encode()]


def test_a_last_line_without_an_end_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(json.dumps(request("a")).encode() + b"\r\n" + json.dumps(request("b")).encode())
    assert [line[-1:] for line in read_requests(tmp_path / "in.jsonl", "/v1/score")] == [b"\n"] * 2


@pytest.mark.parametrize(
    ("to", "row", "body"),
    [
        ("/v1/score", {"messages": TALK}, {"items": [{"messages": TALK}]}),
        ("/v1/score", {"prompt": "p", "steps": ["a"]}, {"items": [{"prompt": "p", "steps": ["a"]}]}),
        (
            "/v1/preferences",
            {"prompt": "p", "candidates": ["a", "b"], "preferences": {"x": 1}},
            {"items": [{"prompt": "p", "candidates": ["a", "b"]}], "preferences": {"x": 1}},
        ),
        (
            "/v1/score",
            {"items": [{"messages": TALK}] * 2, "soup": True},
            {"items": [{"messages": TALK}] * 2, "soup": True},
        ),
        ("/v1/chat/completions", {"messages": TALK, "max_tokens": 3}, {"messages": TALK, "max_tokens": 3}),
        ("/v1/completions", {"prompt": "p", "seed": 1}, {"prompt": "p", "seed": 1}),
    ],
)
def test_rows_are_made_requests(tmp_path: Path, to: Endpoint, row: dict[str, Any], body: dict[str, Any]) -> None:
    [line] = made(tmp_path, to, row)
    assert line == {"custom_id": "in.jsonl:1", "method": "POST", "url": to, "body": body}
    BODIES[to].model_validate(InputLine.model_validate(line).body)


def test_rows_are_called_by_their_id_or_their_place(tmp_path: Path) -> None:
    row = {"messages": TALK}
    rows = [{**row, "id": 17}, "", {**row, "custom_id": "c", "id": "i"}, row, request("r", items=[])]
    assert [line["custom_id"] for line in made(tmp_path, "/v1/score", *rows)] == ["17", "c", "in.jsonl:4", "r"]
    assert made(tmp_path, "/v1/score", rows[0])[0]["body"] == {"items": [row]}


@pytest.mark.parametrize(
    ("to", "row", "says"),
    [
        ("/v1/score", "{", "line 2: this is not JSON"),
        ("/v1/score", "[1]", "line 2: must be a request of `custom_id`, `method`, `url` and `body`, not list"),
        ("/v1/score", {"text": "a"}, "line 2: must be a request .* or for /v1/score a row with `items`, `messages`"),
        ("/v1/chat/completions", {"prompt": "p"}, "or for /v1/chat/completions a row with `messages`"),
        ("/v1/completions", {"messages": TALK}, "or for /v1/completions a row with `prompt`"),
        ("/v1/score", {"url": "/v1/score", "body": {}}, "line 2: custom_id: is required"),
        ("/v1/score", {**request("a"), "method": "GET"}, "line 2: method: "),
        ("/v1/score", {**request("a"), "model": "m"}, "line 2: model: is not a field of this request"),
        (
            "/v1/score",
            request("b", "/v1/completions"),
            "line 2: url: must be /v1/score, the endpoint of the batch, not /v1/completions",
        ),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(tmp_path: Path, to: Endpoint, row: Any, says: str) -> None:
    with pytest.raises(Unprocessable, match=says):
        made(tmp_path, to, "", row)


def test_what_is_not_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"messages": []}\n{"a": "\xff"}\n')
    with pytest.raises(Unprocessable, match="line 2: this is not UTF-8: byte 7"):
        list(read_requests(tmp_path / "in.jsonl", "/v1/score"))


@pytest.mark.parametrize("url", ENDPOINTS)
def test_the_first_line_says_where_all_go(tmp_path: Path, url: Endpoint) -> None:
    assert detect_endpoint(written(tmp_path, "", request("a", url), "{")) == url


def test_a_row_does_not_say_where_it_goes(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="give --endpoint, one of /v1/score, ") as caught:
        detect_endpoint(written(tmp_path, {"messages": TALK}))
    assert caught.value.param == "endpoint"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("", "holds no lines"),
        ("{", "line 1: this is not JSON"),
        (request("a", "/v1/embeddings"), "line 1: url: must be one of"),
    ],
)
def test_a_first_line_that_cannot_be_used(tmp_path: Path, row: Any, says: str) -> None:
    with pytest.raises(Unprocessable, match=says):
        detect_endpoint(written(tmp_path, row))


@given(st.lists(st.sampled_from(["", "  ", "{}"]), max_size=12))
def test_the_servers_lines_are_found_in_the_file(tmp_path_factory: pytest.TempPathFactory, rows: list[str]) -> None:
    path = written(tmp_path_factory.mktemp("in"), *rows)
    full = [number for number, row in enumerate(rows, 1) if row.strip()]
    assert [number for number, _ in read_lines(path)] == full
    assert [find_line_number(path, nth) for nth in range(1, len(full) + 1)] == full
    assert find_line_number(path, len(full) + 1) == len(full) + 1  # of a file that has changed
