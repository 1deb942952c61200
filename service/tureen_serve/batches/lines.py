"""The lines of an input file: read strictly, checked one by one, and grouped into chunks. Pure.

A file fails as a whole if a line of it is no request of the batch with a custom id of its own. What a request asks for
is only checked when it runs, so a bad body is an error of its line, as in OpenAI's batches.
"""

import codecs
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
from tureen_serve.strict_json import JsonLimits, parse_json

M = TypeVar("M", bound=BaseModel)

MAX_ERRORS = 100


@dataclass(frozen=True)
class InputLimits:
    """Limits of an input file and of a chunk, in lines and bytes."""

    lines: int
    line_bytes: int
    chunk_lines: int
    chunk_bytes: int


@dataclass(frozen=True)
class InputCheck:
    """The result of checking an input file: its chunks' line ranges, its errors, and its SHA-256."""

    pieces: Sequence[LineRange]
    errors: Sequence[BatchError]
    digest: str


@dataclass(frozen=True)
class RequestLine:
    """A valid line of an input file."""

    custom_id: str
    body: BaseModel


class ChunkCutter:
    """Groups lines into chunks by the lines' lengths alone, so that every try gives the same chunks."""

    def __init__(self, bounds: InputLimits) -> None:
        self._bounds = bounds
        self._pieces: list[LineRange] = []
        self._line = self._start = 0
        self._lines = self._length = 0

    def add(self, length: int) -> None:
        """Add the next line, of ``length`` bytes."""
        full = self._lines == self._bounds.chunk_lines or self._length + length > self._bounds.chunk_bytes
        if self._lines and full:
            self._cut()
        self._lines += 1
        self._length += length

    def pieces(self) -> list[LineRange]:
        """Return the ranges of all lines so far."""
        if self._lines:
            self._cut()
        return self._pieces

    def _cut(self) -> None:
        self._pieces.append(LineRange(self._line + 1, self._lines, self._start, self._length))
        self._line += self._lines
        self._start += self._length
        self._lines = self._length = 0


def check_input(parts: Iterable[bytes], endpoint: str, bounds: InputLimits) -> InputCheck:
    """Check an input file line by line. Only its first ``MAX_ERRORS`` errors are reported."""
    digest = hashlib.sha256()
    cutter = ChunkCutter(bounds)
    lines = split_lines(_hashed(parts, digest), bounds.line_bytes)
    mistakes = _mistakes(lines, endpoint, bounds, cutter)
    errors = [_batch_error(number, error) for number, error in islice(mistakes, MAX_ERRORS)]
    pieces = cutter.pieces()
    if not pieces:
        errors.append(_batch_error(None, InvalidRequest("the file is empty", code="empty_file")))
    return InputCheck(pieces, errors, digest.hexdigest())


def _mistakes(
    lines: Iterable[bytes], endpoint: str, bounds: InputLimits, cutter: ChunkCutter
) -> Iterator[tuple[int, TureenError]]:
    seen: set[str] = set()
    end = 0  # of the line before, counted in line feeds, since blank lines stand in front of the line that follows
    for count, raw in enumerate(lines, 1):
        cutter.add(len(raw))
        number = end + 1 + raw[: len(raw) - len(raw.lstrip())].count(b"\n")
        end += raw.count(b"\n")
        if count > bounds.lines:
            message = f"the file has more than {bounds.lines} lines; send it in parts"
            yield number, InvalidRequest(message, code="too_many_lines")
            return
        try:
            name = read_input_line(raw, endpoint, bounds.line_bytes).custom_id
        except TureenError as error:
            yield number, error
            continue
        if name in seen:
            message = f"the custom_id {name!r} is also used by another line"
            yield number, Unprocessable(message, param="custom_id", code="duplicate_custom_id")
        seen.add(name)


def read_input_line(raw: bytes, endpoint: str, longest: int) -> InputLine:
    """Parse one line. Its body is any object.

    Raises:
        InvalidRequest: the line is too long, is not JSON, is not a request, or is not one for this endpoint.
    """
    if len(raw) > longest:
        raise InvalidRequest(f"the line is over {longest} bytes", code="line_too_long")
    line = _valid(InputLine, parse_json(_bare(raw), "the line", JsonLimits(text_bytes=longest)))
    if line.url != endpoint:
        message = f"url: the batch goes to {endpoint} and this line to {line.url}; send the line in another batch"
        raise Unprocessable(message, param="url", code="mismatched_endpoint")
    return line


def read_request_line(raw: bytes, endpoint: str, body: type[BaseModel], longest: int) -> RequestLine:
    """Parse one line and validate its body.

    Raises:
        InvalidRequest: as :func:`read_input_line`; or the body is not one that the route takes.
    """
    line = read_input_line(raw, endpoint, longest)
    found = _valid(body, line.body)
    if getattr(found, "stream", False):
        raise Unprocessable("stream: a batch writes whole answers; leave `stream` out", param="stream")
    return RequestLine(line.custom_id, found)


def read_custom_id(raw: bytes) -> str:
    """Return the custom id of a line that was checked before."""
    found: str = parse_json(_bare(raw), limits=JsonLimits(text_bytes=len(raw)))["custom_id"]
    return found


def _bare(raw: bytes) -> bytes:
    """A line without white space at its ends and without the mark that some editors put before a file."""
    return raw.strip().removeprefix(codecs.BOM_UTF8)


def split_lines(parts: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """Yield lines with their line ends, and blank lines in front of the line that follows them; none at the end.

    After a line that is too long, of which a part is yielded, nothing follows.
    """
    rest = blank = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            blank += line + b"\n"
            if line.strip() or len(blank) > longest:
                yield blank
                blank = b""
        if len(rest) > longest:
            break
    if rest.strip():
        yield blank + rest


def _hashed(parts: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for part in parts:
        digest.update(part)
        yield part


def _valid(kind: type[M], document: object) -> M:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise explain_errors(error.errors(include_url=False), document) from None


def _batch_error(number: int | None, error: TureenError) -> BatchError:
    return BatchError(code=error.code, line=number, message=error.message, param=error.param)
