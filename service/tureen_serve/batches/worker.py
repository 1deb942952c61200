"""What is done under a lease: a batch validated, a chunk of it run, a batch finished.

It may be killed at any point. A chunk's result is stored under a key of its own, and the database's word makes it true;
what was not committed is done again, by whoever has the next lease.
"""

from collections.abc import Iterable, Iterator, Sequence

from tureen.errors import ServerFault, TureenError, Unavailable
from tureen.wire import BatchError, BatchErrors
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.batches import results
from tureen_serve.batches.endpoints import BatchEndpoint, BatchEndpoints, LineAnswer
from tureen_serve.batches.file_store import FileStore
from tureen_serve.batches.io_threads import IoThreads
from tureen_serve.batches.leases import LeaseLost, Leases
from tureen_serve.batches.lines import (
    InputLimits,
    RequestLine,
    check_input,
    read_custom_id,
    read_request_line,
    split_lines,
)
from tureen_serve.batches.metrics import BatchMetrics
from tureen_serve.batches.records import Chunk, Lease, LineRange, StoredFile
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics

ATTEMPTS = 3
MOST_DEATHS = 10
DAY = 86400
DEADLY = ServerFault(f"the server has died {MOST_DEATHS} times at this line or one beside it", code="worker_died")


class Worker:
    """Does the work; when, and how much at once, is the runner's affair."""

    def __init__(
        self,
        leases: Leases,
        files: FileStore,
        endpoints: BatchEndpoints,
        options: BatchSettings,
        io: IoThreads,
        metrics: Metrics,
        meters: BatchMetrics,
    ) -> None:
        self._leases = leases
        self._files = files
        self._endpoints = endpoints
        self._options = options
        self._io = io
        self._metrics = metrics
        self._meters = meters
        self._leaving = False

    def leave(self) -> None:
        """Break off what does not end by itself soon."""
        self._leaving = True

    # ----------------------------------------------------------------------- validating

    async def validate(self, lease: Lease) -> None:
        """Look at every line of a batch's input before any model does.

        Raises:
            LeaseLost: the batch is another's, or was cancelled.
        """
        errors, pieces = await self._io(self._check, lease)
        if errors:
            await self._io(self._leases.reject, lease, BatchErrors(data=errors))
        else:
            await self._io(self._leases.begin, lease, pieces)

    def _check(self, lease: Lease) -> tuple[list[BatchError], Sequence[LineRange]]:
        told = self._options
        bounds = InputLimits(told.lines, told.line_bytes, told.chunk_lines, told.chunk_bytes)
        parts = self._while_staying(self._files.read(lease.input.key))
        checked = check_input(parts, lease.endpoint, self._endpoints[lease.endpoint].body, bounds)
        if not checked.errors and checked.digest != lease.input.digest:
            message = "the file is not what was uploaded; upload it again"
            return [BatchError(code="input_changed", message=message)], ()
        return list(checked.errors), checked.pieces

    def _while_staying(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            if self._leaving:
                raise Unavailable("the server is shutting down", code="draining")
            yield part

    # ----------------------------------------------------------------------- running

    async def run(self, engine: Engine, lease: Lease, chunk: Chunk) -> None:
        """Run a chunk's lines and commit what comes of them.

        Raises:
            LeaseLost: the chunk is another's, or void; nothing of this run counts.
            Unavailable: it cannot be run at the moment.
        """
        endpoint = self._endpoints[lease.endpoint]
        lines = await self._io(self._read, lease, chunk, endpoint)
        if chunk.deaths < MOST_DEATHS:
            with engine.hold() as held:
                answers = await self._answers(held, endpoint, [line for _, line in lines])
        else:
            answers = [LineAnswer.refusal(DEADLY)] * len(lines)
        made = await self._io(results.build_result, [name for name, _ in lines], answers)
        key = await self._io(results.write_result, self._files, lease, chunk, made)
        try:
            await self._io(self._leases.commit, lease, key, made.tally)
        except LeaseLost:
            await self._io(results.remove_result, self._files, key)
            raise
        self._meters.lines_done(made.tally.completed, made.tally.failed)

    def _read(self, lease: Lease, chunk: Chunk, endpoint: BatchEndpoint) -> list[tuple[str, RequestLine | TureenError]]:
        raw = self._files.slice(lease.input.key, chunk.piece.start, chunk.piece.length)
        return [self._line(each, lease.endpoint, endpoint) for each in split_lines([raw], len(raw))]

    def _line(self, raw: bytes, url: str, endpoint: BatchEndpoint) -> tuple[str, RequestLine | TureenError]:
        """A line and its name. It was read before, perhaps by an older server that took more."""
        try:
            return read_custom_id(raw), read_request_line(raw, url, endpoint.body, self._options.line_bytes)
        except TureenError as error:
            return read_custom_id(raw), error

    async def _answers(
        self, engine: Engine, endpoint: BatchEndpoint, lines: Sequence[RequestLine | TureenError]
    ) -> list[LineAnswer]:
        """An answer to each line. Those at which the server failed are tried again, together, a few times."""
        answers = {place: LineAnswer.refusal(line) for place, line in enumerate(lines) if isinstance(line, TureenError)}
        left = {place: line.body for place, line in enumerate(lines) if isinstance(line, RequestLine)}
        for _ in range(ATTEMPTS):
            if not left:
                break
            found = await endpoint.run(engine, self._metrics, list(left.values()), self._options.texts)
            if busy := next((answer for answer in found if answer.transient), None):
                raise Unavailable(busy.body["error"]["message"])
            answers |= zip(left, found, strict=True)
            left = {place: body for place, body in left.items() if answers[place].faulty}
        return [answers[place] for place in range(len(lines))]

    # ----------------------------------------------------------------------- finishing

    async def finish(self, lease: Lease) -> None:
        """Put a batch's files together and end it.

        Raises:
            LeaseLost: another does, or has done so.
        """
        chunks = await self._io(self._leases.chunks, lease.batch_id)
        made = await self._io(results.write_batch_files, self._files, lease, chunks)
        try:
            seconds = await self._io(self._leases.conclude, lease, *made, self._options.keep_days * DAY)
        except LeaseLost:
            await self._io(self._remove, made)
            raise
        self._meters.job_done(seconds)

    def _remove(self, made: Iterable[StoredFile | None]) -> None:
        for stored in made:
            if stored is not None:
                self._files.remove(stored.key)

    async def tidy(self) -> None:
        """Remove what ended batches and files past their time have left behind, and count what there is."""
        await self._io(self._sweep)
        self._meters.jobs_are(*await self._io(self._leases.upkeep.count_batches))

    def _sweep(self) -> None:
        for batch_id, keys in self._leases.upkeep.find_unswept():
            self._files.sweep(results.batch_folder(batch_id), keys)
            self._leases.upkeep.mark_swept(batch_id)
        for key in self._leases.upkeep.delete_overdue_files():
            self._files.remove(key)
