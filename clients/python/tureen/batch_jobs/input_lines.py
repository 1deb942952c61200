"""Read a batch's input file line by line, and turn short rows into full requests.

A request is OpenAI's: ``{"custom_id": …, "method": "POST", "url": "/v1/score", "body": {…}}``. If the
endpoint is given, a line may be shorter: the body alone, or for scores and preferences one item (``messages``, or
``prompt`` with ``candidates`` or ``steps``) with other fields of the body beside it. The ``custom_id`` of such a row is
its ``custom_id`` or ``id``, or else the file's name and the line, as ``in.jsonl:7``. Empty lines are skipped.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tureen.errors import InvalidRequest, TureenError, Unprocessable
from tureen.http_requests import encode_json
from tureen.json_lines import iterate_lines
from tureen.validation import explain_errors
from tureen.wire import ENDPOINTS, Endpoint, InputLine, ScoreItem

REQUEST = "a request of `custom_id`, `method`, `url` and `body`"
ROW = "`items`, `messages`, or `prompt` with `candidates` or `steps`"
ROWS: Mapping[Endpoint, str] = {
    "/v1/score": ROW,
    "/v1/preferences": ROW,
    "/v1/chat/completions": "`messages`",
    "/v1/completions": "`prompt`",
    "/v1/responses": "`input`",
}


def detect_endpoint(path: Path) -> Endpoint:
    """Return the endpoint that the first line of a file names.

    Raises:
        Unprocessable: the file has no lines, or the first one is invalid.
        InvalidRequest: the line names no endpoint; ``param`` is ``endpoint``.
    """
    number, raw = next(read_lines(path), (0, b""))
    if not number:
        raise Unprocessable(f"{path} holds no lines: write one request on each line")
    url = _parse_line(raw, f"{path}, line {number}").get("url")
    if url is None:
        message = f"the first line of {path} has no `url`: give --endpoint, one of {', '.join(ENDPOINTS)}"
        raise InvalidRequest(message, param="endpoint")
    for known in ENDPOINTS:
        if url == known:
            return known
    raise Unprocessable(f"{path}, line {number}: url: must be one of {', '.join(ENDPOINTS)}", param="url")


def read_requests(path: Path, to: Endpoint) -> Iterator[bytes]:
    """Yield the lines to upload. The server checks the bodies.

    Raises:
        Unprocessable: a line is invalid; the message gives its number and the reason.
    """
    for number, raw in read_lines(path):
        place = f"{path}, line {number}"
        document = _parse_line(raw, place)
        if document.keys() & {"method", "url", "body"}:
            _check_request(document, to, place)
            yield raw + b"\n"
        else:
            yield encode_json(_build_request(document, to, f"{path.name}:{number}", place)) + b"\n"


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not empty as (number, bytes without line end); numbers start at 1."""
    with path.open("rb") as file:
        yield from iterate_lines(file)


def find_line_number(path: Path, nth: int) -> int:
    """Return the file's line number of the server's line ``nth``: the server does not see empty lines."""
    return next(islice((number for number, _ in read_lines(path)), nth - 1, None), nth)


def _parse_line(raw: bytes, place: str) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except UnicodeDecodeError as error:
        raise Unprocessable(f"{place}: this is not UTF-8: byte {error.start} cannot be read") from None
    except (ValueError, RecursionError) as error:
        raise Unprocessable(f"{place}: this is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Unprocessable(f"{place}: must be {REQUEST}, not {type(document).__name__}")
    return document


def _check_request(document: dict[str, Any], to: Endpoint, place: str) -> None:
    try:
        line = InputLine.model_validate(document)
        if line.url != to:
            raise Unprocessable(f"url: must be {to}, the endpoint of the batch, not {line.url}", param="url")
    except ValidationError as error:
        raise _locate_error(explain_errors(error.errors(), document), place) from None
    except TureenError as error:
        raise _locate_error(error, place) from None


def _locate_error(error: TureenError, place: str) -> TureenError:
    return type(error)(f"{place}: {error.message}", param=error.param, code=error.code)


def _build_request(row: dict[str, Any], to: Endpoint, fallback: str, place: str) -> dict[str, Any]:
    """Return the full request for a row."""
    body = {name: value for name, value in row.items() if name not in ("custom_id", "id")}
    name = row.get("custom_id", row.get("id", fallback))
    scored = ROWS[to] == ROW
    if not body.keys() & ({"items", "messages", "prompt"} if scored else {ROWS[to].strip("`")}):
        raise Unprocessable(f"{place}: must be {REQUEST}, or for {to} a row with {ROWS[to]}")
    if scored and "items" not in body:
        item = {name: body.pop(name) for name in ScoreItem.model_fields if name in body}
        body["items"] = [item]
    return {"custom_id": str(name), "method": "POST", "url": to, "body": body}
