"""What is done under a lease: a batch validated, a chunk of it run, a batch finished.

It may be killed at any point. A chunk's result is stored under a key of its own, and the database's word makes it true;
what was not committed is done again, by whoever has the next lease.
"""

from collections.abc import Iterable, Iterator, Sequence

from tureen.errors import ServerFault, TureenError, Unavailable
from tureen.wire import BatchError, BatchErrors
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.batches import results
from tureen_serve.batches.aside import Aside
from tureen_serve.batches.contract import Answer, Journey, Journeys
from tureen_serve.batches.files import Files
from tureen_serve.batches.leases import Leases, Lost
from tureen_serve.batches.lines import Bounds, Line, check, custom_id, read, split
from tureen_serve.batches.meters import Meters
from tureen_serve.batches.records import Chunk, Lease, Piece, Stored
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
        files: Files,
        journeys: Journeys,
        options: BatchSettings,
        aside: Aside,
        metrics: Metrics,
        meters: Meters,
    ) -> None:
        self._leases = leases
        self._files = files
        self._journeys = journeys
        self._options = options
        self._aside = aside
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
            Lost: the batch is another's, or was cancelled.
        """
        errors, pieces = await self._aside(self._check, lease)
        if errors:
            await self._aside(self._leases.reject, lease, BatchErrors(data=errors))
        else:
            await self._aside(self._leases.begin, lease, pieces)

    def _check(self, lease: Lease) -> tuple[list[BatchError], Sequence[Piece]]:
        told = self._options
        bounds = Bounds(told.lines, told.line_bytes, told.chunk_lines, told.chunk_bytes)
        parts = self._while_staying(self._files.read(lease.input.key))
        checked = check(parts, lease.endpoint, self._journeys[lease.endpoint].body, bounds)
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
            Lost: the chunk is another's, or void; nothing of this run counts.
            Unavailable: it cannot be run at the moment.
        """
        journey = self._journeys[lease.endpoint]
        lines = await self._aside(self._read, lease, chunk, journey)
        if chunk.deaths < MOST_DEATHS:
            answers = await self._answers(engine, journey, [line for _, line in lines])
        else:
            answers = [Answer.refusal(DEADLY)] * len(lines)
        made = await self._aside(results.result, [name for name, _ in lines], answers)
        key = await self._aside(results.write, self._files, lease, chunk, made)
        try:
            await self._aside(self._leases.commit, lease, key, made.tally)
        except Lost:
            await self._aside(results.discard, self._files, key)
            raise
        self._meters.lines_done(made.tally.completed, made.tally.failed)

    def _read(self, lease: Lease, chunk: Chunk, journey: Journey) -> list[tuple[str, Line | TureenError]]:
        raw = self._files.slice(lease.input.key, chunk.piece.start, chunk.piece.length)
        return [self._line(each, lease.endpoint, journey) for each in split([raw], len(raw))]

    def _line(self, raw: bytes, endpoint: str, journey: Journey) -> tuple[str, Line | TureenError]:
        """A line and its name. It was read before, perhaps by an older server that took more."""
        try:
            return custom_id(raw), read(raw, endpoint, journey.body, self._options.line_bytes)
        except TureenError as error:
            return custom_id(raw), error

    async def _answers(self, engine: Engine, journey: Journey, lines: Sequence[Line | TureenError]) -> list[Answer]:
        """An answer to each line. Those at which the server failed are tried again, together, a few times."""
        answers = {place: Answer.refusal(line) for place, line in enumerate(lines) if isinstance(line, TureenError)}
        left = {place: line.body for place, line in enumerate(lines) if isinstance(line, Line)}
        for _ in range(ATTEMPTS):
            if not left:
                break
            found = await journey.run(engine, self._metrics, list(left.values()), self._options.texts)
            if busy := next((answer for answer in found if answer.transient), None):
                raise Unavailable(busy.body["error"]["message"])
            answers |= zip(left, found, strict=True)
            left = {place: body for place, body in left.items() if answers[place].faulty}
        return [answers[place] for place in range(len(lines))]

    # ----------------------------------------------------------------------- finishing

    async def finish(self, lease: Lease) -> None:
        """Put a batch's files together and end it.

        Raises:
            Lost: another does, or has done so.
        """
        chunks = await self._aside(self._leases.chunks, lease.batch_id)
        made = await self._aside(results.assemble, self._files, lease, chunks)
        try:
            seconds = await self._aside(self._leases.conclude, lease, *made, self._options.keep_days * DAY)
        except Lost:
            await self._aside(self._remove, made)
            raise
        self._meters.job_done(seconds)

    def _remove(self, made: Iterable[Stored | None]) -> None:
        for stored in made:
            if stored is not None:
                self._files.remove(stored.key)

    async def tidy(self) -> None:
        """Remove what ended batches and files past their time have left behind, and count what there is."""
        await self._aside(self._sweep)
        self._meters.jobs_are(*await self._aside(self._leases.census))

    def _sweep(self) -> None:
        for batch_id, keys in self._leases.ended():
            self._files.sweep(results.folder(batch_id), keys)
            self._leases.swept(batch_id)
        for key in self._leases.drop_overdue():
            self._files.remove(key)
