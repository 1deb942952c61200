"""Input files of batches, a line at a time: requests as they are, and rows that are made requests.

A request is OpenAI's: ``{"custom_id": …, "method": "POST", "url": "/v1/score", "body": {…}}``. Where the endpoint is
given, a line may be less: the body alone, or for scores and preferences one item (``messages``, or ``prompt`` with
``candidates`` or ``steps``), with other fields of the body beside it. Such a row is called by its ``custom_id`` or
``id``, else by the file's name and its line, as ``in.jsonl:7``. Empty lines are passed over.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tureen.errors import InvalidRequest, TureenError, Unprocessable
from tureen.http_requests import encode_json
from tureen.validation import explain_errors
from tureen.wire import ENDPOINTS, Endpoint, InputLine, ScoreItem

REQUEST = "a request of `custom_id`, `method`, `url` and `body`"
ROW = "`items`, `messages`, or `prompt` with `candidates` or `steps`"
ROWS: Mapping[Endpoint, str] = {
    "/v1/score": ROW,
    "/v1/preferences": ROW,
    "/v1/chat/completions": "`messages`",
    "/v1/completions": "`prompt`",
}


def detect_endpoint(path: Path) -> Endpoint:
    """Where the first line of a file goes.

    Raises:
        Unprocessable: there is none, or it cannot be used.
        InvalidRequest: it does not say; ``param`` is ``endpoint``.
    """
    number, raw = next(read_lines(path), (0, b""))
    if not number:
        raise Unprocessable(f"{path} holds no lines")
    url = _parsed(raw, f"{path}, line {number}").get("url")
    if url is None:
        message = f"{path} does not say where its lines go: give --endpoint, one of {', '.join(ENDPOINTS)}"
        raise InvalidRequest(message, param="endpoint")
    for known in ENDPOINTS:
        if url == known:
            return known
    raise Unprocessable(f"{path}, line {number}: url: must be one of {', '.join(ENDPOINTS)}", param="url")


def read_requests(path: Path, to: Endpoint) -> Iterator[bytes]:
    """The lines that are uploaded for a file; bodies are left for the server to judge.

    Raises:
        Unprocessable: a line cannot be used; the message says which and why.
    """
    for number, raw in read_lines(path):
        place = f"{path}, line {number}"
        document = _parsed(raw, place)
        if document.keys() & {"method", "url", "body"}:
            _check(document, to, place)
            yield raw + b"\n"
        else:
            yield encode_json(_made(document, to, f"{path.name}:{number}", place)) + b"\n"


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, without their ends, each with its number."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if line := raw.strip():
                yield number, line


def find_line_number(path: Path, nth: int) -> int:
    """The number of a file's ``nth`` line that is not empty: the server does not see the empty ones."""
    return next(islice((number for number, _ in read_lines(path)), nth - 1, None), nth)


def _parsed(raw: bytes, place: str) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except UnicodeDecodeError as error:
        raise Unprocessable(f"{place}: this is not UTF-8: byte {error.start} cannot be read") from None
    except (ValueError, RecursionError) as error:
        raise Unprocessable(f"{place}: this is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Unprocessable(f"{place}: must be {REQUEST}, not {type(document).__name__}")
    return document


def _check(document: dict[str, Any], to: Endpoint, place: str) -> None:
    try:
        line = InputLine.model_validate(document)
        if line.url != to:
            raise Unprocessable(f"url: the line goes to {line.url} and the batch to {to}", param="url")
    except ValidationError as error:
        raise _placed(explain_errors(error.errors(), document), place) from None
    except TureenError as error:
        raise _placed(error, place) from None


def _placed(error: TureenError, place: str) -> TureenError:
    return type(error)(f"{place}: {error.message}", param=error.param, code=error.code)


def _made(row: dict[str, Any], to: Endpoint, fallback: str, place: str) -> dict[str, Any]:
    """The request that a row stands for."""
    body = {name: value for name, value in row.items() if name not in ("custom_id", "id")}
    name = row.get("custom_id", row.get("id", fallback))
    scored = ROWS[to] == ROW
    if not body.keys() & ({"items", "messages", "prompt"} if scored else {ROWS[to].strip("`")}):
        raise Unprocessable(f"{place}: must be {REQUEST}, or for {to} a row with {ROWS[to]}")
    if scored and "items" not in body:
        item = {name: body.pop(name) for name in ScoreItem.model_fields if name in body}
        body["items"] = [item]
    return {"custom_id": str(name), "method": "POST", "url": to, "body": body}
