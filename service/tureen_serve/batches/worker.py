"""The work under a lease: validate a batch, run one of its chunks, finish it.

A worker may be killed at any point. It stores a chunk's result under a key of its own; the result counts once the
database has committed that key. Work that was not committed is done again under the next lease.
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
from tureen_serve.inference.demand import TENANT
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics

ATTEMPTS = 3
MOST_DEATHS = 10
DAY = 86400
DEADLY = ServerFault(
    f"servers died {MOST_DEATHS} times while they ran this line's chunk; send its lines one by one to find which",
    code="worker_died",
)


class Worker:
    """Does leased work. The runner decides when, and how much at once."""

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
        """Stop validations that would take long, because the server shuts down."""
        self._leaving = True

    # ----------------------------------------------------------------------- validating

    async def validate(self, lease: Lease) -> None:
        """Check the custom id and the endpoint of every line of a batch's input before any model runs.

        Raises:
            LeaseLost: another worker has the batch, or it was cancelled.
        """
        errors, pieces = await self._io(self._check, lease)
        if errors:
            await self._io(self._leases.reject, lease, BatchErrors(data=errors))
        else:
            await self._io(self._leases.begin, lease, pieces)

    def _check(self, lease: Lease) -> tuple[list[BatchError], Sequence[LineRange]]:
        options = self._options
        limits = InputLimits(options.lines, options.line_bytes, options.chunk_lines, options.chunk_bytes)
        parts = self._while_staying(self._files.read(lease.input.key))
        checked = check_input(parts, lease.endpoint, limits)
        if not checked.errors and checked.digest != lease.input.digest:
            message = "the stored file differs from the uploaded one (SHA-256); upload it again"
            return [BatchError(code="input_changed", message=message)], ()
        return list(checked.errors), checked.pieces

    def _while_staying(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            if self._leaving:
                raise Unavailable("the server is shutting down", code="draining")
            yield part

    # ----------------------------------------------------------------------- running

    async def run(self, engine: Engine, lease: Lease, chunk: Chunk) -> None:
        """Run a chunk's lines and commit the result. Call it in a task of its own: the lines count for their tenant.

        Raises:
            LeaseLost: another worker has the chunk, or it was voided; this result does not count.
            Unavailable: the chunk cannot be run at the moment.
        """
        TENANT.set(lease.tenant)
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
        self._meters.count_lines(made.tally.completed, made.tally.failed)

    def _read(self, lease: Lease, chunk: Chunk, endpoint: BatchEndpoint) -> list[tuple[str, RequestLine | TureenError]]:
        raw = self._files.read_range(lease.input.key, chunk.piece.start, chunk.piece.length)
        return [self._line(each, lease.endpoint, endpoint) for each in split_lines([raw], len(raw))]

    def _line(self, raw: bytes, url: str, endpoint: BatchEndpoint) -> tuple[str, RequestLine | TureenError]:
        """Read a line and its custom id; the error of a body that the route does not take."""
        try:
            return read_custom_id(raw), read_request_line(raw, url, endpoint.body, self._options.line_bytes)
        except TureenError as error:
            return read_custom_id(raw), error

    async def _answers(
        self, engine: Engine, endpoint: BatchEndpoint, lines: Sequence[RequestLine | TureenError]
    ) -> list[LineAnswer]:
        """Answer each line. Lines at which the server failed are tried again, together, up to ``ATTEMPTS`` times."""
        answers = {place: endpoint.refuse(line) for place, line in enumerate(lines) if isinstance(line, TureenError)}
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
        """Write a batch's output and error file and end it.

        Raises:
            LeaseLost: another worker does so, or has done so.
        """
        chunks = await self._io(self._leases.chunks, lease.batch_id)
        made = await self._io(results.write_batch_files, self._files, lease, chunks)
        try:
            seconds = await self._io(self._leases.conclude, lease, *made, self._options.keep_days * DAY)
        except LeaseLost:
            await self._io(self._remove, made)
            raise
        self._meters.observe_duration(seconds)

    def _remove(self, made: Iterable[StoredFile | None]) -> None:
        for stored in made:
            if stored is not None:
                self._files.remove(stored.key)

    async def tidy(self) -> None:
        """Remove what ended batches and expired files have left behind, and update the metrics."""
        await self._io(self._sweep)
        self._meters.set_batches(*await self._io(self._leases.upkeep.count_batches))

    def _sweep(self) -> None:
        for batch_id, keys in self._leases.upkeep.find_unswept():
            self._files.sweep(results.batch_folder(batch_id), keys)
            self._leases.upkeep.mark_swept(batch_id)
        for key in self._leases.upkeep.delete_overdue_files():
            self._files.remove(key)
