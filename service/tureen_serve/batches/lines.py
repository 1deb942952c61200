"""The lines of an input file: read strictly, checked one by one, and cut into chunks. Pure."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tureen.errors import InvalidRequest, TureenError, Unprocessable
from tureen.validation import explain_errors
from tureen.wire import BatchError, InputLine
from tureen_serve.batches.records import LineRange
from tureen_serve.strict_json import parse_json

M = TypeVar("M", bound=BaseModel)

MAX_ERRORS = 100


@dataclass(frozen=True)
class InputLimits:
    """What an input file may hold, and how much of it makes a chunk."""

    lines: int
    line_bytes: int
    chunk_lines: int
    chunk_bytes: int


@dataclass(frozen=True)
class InputCheck:
    """What a look through an input file found: its pieces, or what is wrong with it, and its SHA-256."""

    pieces: Sequence[LineRange]
    errors: Sequence[BatchError]
    digest: str


@dataclass(frozen=True)
class RequestLine:
    """A line that can be run."""

    custom_id: str
    body: BaseModel


class ChunkCutter:
    """Where chunks begin and end: a function of the lines' lengths, so that it is the same at every try."""

    def __init__(self, bounds: InputLimits) -> None:
        self._bounds = bounds
        self._pieces: list[LineRange] = []
        self._line = self._start = 0
        self._lines = self._length = 0

    def add(self, length: int) -> None:
        """One more line."""
        full = self._lines == self._bounds.chunk_lines or self._length + length > self._bounds.chunk_bytes
        if self._lines and full:
            self._cut()
        self._lines += 1
        self._length += length

    def pieces(self) -> list[LineRange]:
        """All lines so far."""
        if self._lines:
            self._cut()
        return self._pieces

    def _cut(self) -> None:
        self._pieces.append(LineRange(self._line + 1, self._lines, self._start, self._length))
        self._line += self._lines
        self._start += self._length
        self._lines = self._length = 0


def check_input(parts: Iterable[bytes], endpoint: str, body: type[BaseModel], bounds: InputLimits) -> InputCheck:
    """Look through an input file, a line at a time. No more is told than its first hundred errors."""
    digest = hashlib.sha256()
    cutter = ChunkCutter(bounds)
    lines = split_lines(_hashed(parts, digest), bounds.line_bytes)
    mistakes = _mistakes(lines, endpoint, body, bounds, cutter)
    errors = [_told(number, error) for number, error in islice(mistakes, MAX_ERRORS)]
    pieces = cutter.pieces()
    if not pieces:
        errors.append(_told(None, InvalidRequest("the file is empty", code="empty_file")))
    return InputCheck(pieces, errors, digest.hexdigest())


def _mistakes(
    lines: Iterable[bytes], endpoint: str, body: type[BaseModel], bounds: InputLimits, cutter: ChunkCutter
) -> Iterator[tuple[int, TureenError]]:
    seen: set[str] = set()
    for number, raw in enumerate(lines, 1):
        cutter.add(len(raw))
        if number > bounds.lines:
            message = f"the file has more than {bounds.lines} lines; send it in parts"
            yield number, InvalidRequest(message, code="too_many_lines")
            return
        try:
            name = read_request_line(raw, endpoint, body, bounds.line_bytes).custom_id
        except TureenError as error:
            yield number, error
            continue
        if name in seen:
            message = f"the custom_id {name!r} stands on another line too"
            yield number, Unprocessable(message, param="custom_id", code="duplicate_custom_id")
        seen.add(name)


def read_request_line(raw: bytes, endpoint: str, body: type[BaseModel], longest: int) -> RequestLine:
    """One line.

    Raises:
        InvalidRequest: it is too long, no JSON, no request, or none that this endpoint takes.
    """
    if len(raw) > longest:
        raise InvalidRequest(f"the line is over {longest} bytes", code="line_too_long")
    line = _valid(InputLine, parse_json(raw.strip(), "the line"))
    if line.url != endpoint:
        message = f"this batch goes to {endpoint}, and the line to {line.url}; send it in a batch of its own"
        raise Unprocessable(message, param="url", code="mismatched_endpoint")
    try:
        found = _valid(body, line.body)
    except TureenError as error:
        raise error.at("body") from None
    if getattr(found, "stream", False):
        raise Unprocessable("a batch's answers are written whole; leave `stream` out", param="body.stream")
    return RequestLine(line.custom_id, found)


def read_custom_id(raw: bytes) -> str:
    """The name of a line that was checked before."""
    found: str = parse_json(raw.strip())["custom_id"]
    return found


def split_lines(parts: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """Lines with their ends. A line that is too long is the last one, and only its beginning is kept."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from (line + b"\n" for line in whole)
        if len(rest) > longest:
            break
    if rest:
        yield rest


def _hashed(parts: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for part in parts:
        digest.update(part)
        yield part


def _valid(kind: type[M], document: object) -> M:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise explain_errors(error.errors(include_url=False), document) from None


def _told(number: int | None, error: TureenError) -> BatchError:
    return BatchError(code=error.code, line=number, message=error.message, param=error.param)
