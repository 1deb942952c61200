"""Results: the lines of each chunk, and a batch's output and error file, joined from its chunks in input order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tureen.errors import ServerFault
from tureen.json_lines import encode_line
from tureen.wire import LineError, LineResponse, OutputLine
from tureen_serve.batches.endpoints import LineAnswer
from tureen_serve.batches.file_store import FileStore
from tureen_serve.batches.lines import read_custom_id, split_lines
from tureen_serve.batches.records import Chunk, Lease, StoredFile, Tally, new_id

GOOD, BAD = ".good", ".bad"
NOT_JSON = LineAnswer.refusal(
    ServerFault("the answer cannot be written as JSON; it holds a number that is not finite", code="non_finite_number")
)
UNRUN_ERRORS = {
    "expired": LineError(code="batch_expired", message="the completion window closed before this line was run"),
    "cancelled": LineError(code="batch_cancelled", message="the batch was cancelled before this line was run"),
}


@dataclass(frozen=True)
class ChunkResult:
    """A chunk's result: output lines, error lines, and their counts."""

    good: bytes
    bad: bytes
    tally: Tally


def build_result(names: Sequence[str], answers: Sequence[LineAnswer]) -> ChunkResult:
    """Build the result of lines with these custom ids. Pure but for the random ids."""
    encoded = [_encode_answer(name, answer) for name, answer in zip(names, answers, strict=True)]
    good = [line for line, answer in encoded if answer.good]
    bad = [line for line, answer in encoded if not answer.good]
    # responses of /v1/responses have names of their own
    used = [answer.body.get("usage", {}) for _, answer in encoded if answer.good]
    tally = Tally(
        completed=len(good),
        failed=len(bad),
        input_tokens=sum(usage.get("prompt_tokens", usage.get("input_tokens", 0)) for usage in used),
        output_tokens=sum(usage.get("completion_tokens", usage.get("output_tokens", 0)) for usage in used),
    )
    return ChunkResult(b"".join(good), b"".join(bad), tally)


def _encode_answer(name: str, answer: LineAnswer) -> tuple[bytes, LineAnswer]:
    """Return an answer as a line, or an error and its line if JSON cannot express the answer."""
    try:
        return _line(name, answer), answer
    except ValueError:
        return _line(name, NOT_JSON), NOT_JSON


def _line(name: str, answer: LineAnswer) -> bytes:
    request = new_id("req_")
    body = answer.body if answer.good else {**answer.body, "request_id": request}
    return encode_line(
        OutputLine(
            id=new_id("batch_req_"),
            custom_id=name,
            response=LineResponse(status_code=answer.status, request_id=request, body=body),
        ).model_dump()
    )


def batch_folder(batch_id: str) -> str:
    """Return the folder, in the file store, of all files that a batch makes."""
    return f"batches/{batch_id}"


def write_result(files: FileStore, lease: Lease, chunk: Chunk, made: ChunkResult) -> str:
    """Store a chunk's result under a key of this lease and return the key. It counts once the lease is committed."""
    key = f"{batch_folder(lease.batch_id)}/{chunk.number:05}-{lease.fence}"
    for suffix, part in ((GOOD, made.good), (BAD, made.bad)):
        if part:
            files.write(key + suffix, [part])
    return key


def remove_result(files: FileStore, key: str) -> None:
    """Remove a result that was refused."""
    for suffix in (GOOD, BAD):
        files.remove(key + suffix)


def write_batch_files(
    files: FileStore, lease: Lease, chunks: Sequence[Chunk]
) -> tuple[StoredFile | None, StoredFile | None]:
    """Write the output and the error file of a batch under new keys; None for a file that would be empty."""
    why = UNRUN_ERRORS.get(lease.outcome or "")

    def output() -> Iterator[bytes]:
        for chunk in chunks:
            if chunk.key is not None and chunk.completed:
                yield from files.read(chunk.key + GOOD)

    def errors() -> Iterator[bytes]:
        for chunk in chunks:
            if chunk.key is not None and chunk.failed:
                yield from files.read(chunk.key + BAD)
            elif chunk.key is None and why is not None:
                yield from _unrun_lines(files, lease, chunk, why)

    return _store(files, lease, "output", output()), _store(files, lease, "error", errors())


def _store(files: FileStore, lease: Lease, kind: str, parts: Iterable[bytes]) -> StoredFile | None:
    stored = files.write(f"{batch_folder(lease.batch_id)}/{kind}-{lease.fence}.jsonl", parts)
    if stored.bytes:
        return stored
    files.remove(stored.key)
    return None


def _unrun_lines(files: FileStore, lease: Lease, chunk: Chunk, why: LineError) -> Iterator[bytes]:
    raw = files.read_range(lease.input.key, chunk.piece.start, chunk.piece.length)
    for line in split_lines([raw], len(raw)):
        yield encode_line(OutputLine(id=new_id("batch_req_"), custom_id=read_custom_id(line), error=why).model_dump())
