"""Leases on work, and the transactions that commit its results. Every method is one transaction.

Work is a chunk of a batch, or a whole batch that must be validated or finished. A worker takes a lease on it. A lease
that is not extended in time goes to the next worker that asks, with a higher fence number, and results under the older
fence are refused. So work may be done twice, and its result counts once.

A transaction that locks a batch and a chunk locks the batch first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from tureen.wire import BatchErrors
from tureen_serve.batches import records
from tureen_serve.batches.database import Database
from tureen_serve.batches.records import Chunk, Lease, LineRange, StoredFile, Tally, new_id
from tureen_serve.batches.schema import batches, chunks, files
from tureen_serve.batches.shared_writes import UNFINISHED, insert_file
from tureen_serve.batches.upkeep import Upkeep
from tureen_serve.inference.demand import NO_TENANT


class LeaseLost(Exception):
    """The lease has passed to another worker, or its work was voided; the result is refused."""


class Leases:
    """Gives out leases and takes results.

    Args:
        seconds: how long a lease holds unless it is extended.

    Attributes:
        owner: the id that this worker writes on its leases.
        upkeep: the transactions that need no lease.
    """

    def __init__(self, database: Database, seconds: float) -> None:
        self.owner = new_id("worker-")
        self.upkeep = Upkeep(database)
        self._database = database
        self._seconds = seconds

    # ----------------------------------------------------------------------- taking

    def take_chunk(self) -> Lease | None:
        """Lease a chunk that nobody works on; None if there is none.

        The batch with the lowest waiting chunk number goes first. A chunk at which workers died comes after chunks
        with fewer deaths, so that a line that kills its worker does not hold up other lines.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            free = or_(
                and_(chunks.c.state == "waiting", chunks.c.not_before <= now),
                and_(chunks.c.state == "leased", chunks.c.leased_until <= now),
            )
            deaths = chunks.c.deaths + case((chunks.c.state == "leased", 1), else_=0)
            row = connection.execute(
                select(chunks, deaths.label("fallen"))
                .join(batches)
                .where(batches.c.status == "in_progress", batches.c.expires_at > now, free)
                .order_by(deaths, chunks.c.number, batches.c.created_at)
                .limit(1)
                .with_for_update(of=chunks, skip_locked=True)
            ).one_or_none()
            if row is None:
                return None
            lease = {"state": "leased", "deaths": row.fallen, **self._lease(row, now)}
            connection.execute(update(chunks).where(_is_chunk(row.batch_id, row.number)).values(lease))
            chunk = records.chunk_from_row(
                connection.execute(select(chunks).where(_is_chunk(row.batch_id, row.number))).one()
            )
            return _leased(connection, row.batch_id, row.fence + 1, chunk)

    def take_batch(self) -> Lease | None:
        """Lease a batch that must be validated, or that has no line left to run; None if there is none."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            free = or_(batches.c.leased_until.is_(None), batches.c.leased_until <= now)
            due = batches.c.status.in_(("validating", "finalizing", "cancelling"))
            row = connection.execute(
                select(batches)
                .where(due, free)
                .order_by(batches.c.created_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).one_or_none()
            if row is None:
                return None
            connection.execute(update(batches).where(batches.c.id == row.id).values(self._lease(row, now)))
            return _leased(connection, row.id, row.fence + 1)

    def _lease(self, row: Row[Any], now: float) -> Mapping[str, Any]:
        return {"owner": self.owner, "fence": row.fence + 1, "leased_until": now + self._seconds}

    # ----------------------------------------------------------------------- holding

    def extend(self, lease: Lease) -> None:
        """Extend a lease by its full time.

        Raises:
            LeaseLost: another worker has it, or its work was voided.
        """
        with self._database.writing() as connection:
            until = self._database.now(connection) + self._seconds
            _write(connection, lease, leased_until=until)

    def release(self, lease: Lease, wait: float = 0.0, refused: bool = False) -> None:
        """Give work back undone, to be leased again after ``wait`` seconds. A lost lease changes nothing.

        Args:
            refused: count it as a failed attempt.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            if lease.chunk is None:
                connection.execute(update(batches).where(_holds(lease)).values(leased_until=now + wait))
                return
            again = {"state": "waiting", "not_before": now + wait, "refusals": chunks.c.refusals + int(refused)}
            connection.execute(update(chunks).where(_holds(lease)).values(again))

    # ----------------------------------------------------------------------- settling

    def begin(self, lease: Lease, pieces: Sequence[LineRange]) -> None:
        """Start a batch whose input is valid; each range of lines becomes a chunk.

        Raises:
            LeaseLost: the batch was not started.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            total = sum(piece.lines for piece in pieces)
            _write(connection, lease, status="in_progress", in_progress_at=now, total=total, leased_until=None)
            rows = [{"batch_id": lease.batch_id, "number": number, **vars(each)} for number, each in enumerate(pieces)]
            connection.execute(insert(chunks), rows)

    def reject(self, lease: Lease, errors: BatchErrors) -> None:
        """End a batch as failed, because its input is not valid.

        Raises:
            LeaseLost: another worker validates it.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _write(connection, lease, status="failed", errors=errors.model_dump(), ended_at=now)

    def commit(self, lease: Lease, key: str, tally: Tally) -> None:
        """Record a chunk's result, stored under ``key``. After the last chunk the batch can be finished.

        Raises:
            LeaseLost: another worker has the chunk, or it was voided; this result does not count.
        """
        with self._database.writing() as connection:
            counts = {name: batches.c[name] + count for name, count in vars(tally).items()}
            connection.execute(update(batches).where(batches.c.id == lease.batch_id).values(counts))
            _write(connection, lease, state="done", key=key, completed=tally.completed, failed=tally.failed)
            left = exists().where(chunks.c.batch_id == lease.batch_id, chunks.c.state.in_(UNFINISHED))
            over = update(batches).where(batches.c.id == lease.batch_id, ~left)
            now = self._database.now(connection)
            connection.execute(over.values(status="finalizing", outcome="completed", finalizing_at=now))

    def conclude(self, lease: Lease, output: StoredFile | None, errors: StoredFile | None, keep: int) -> float:
        """End a batch and record its files, kept for ``keep`` seconds unless the batch sets its own time.

        Returns:
            Seconds since the batch was created.

        Raises:
            LeaseLost: another worker has ended it or is about to.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _write(connection, lease, status=lease.outcome, ended_at=now)
            row = connection.execute(select(batches).where(batches.c.id == lease.batch_id)).one()
            made = {
                f"{kind}_file_id": _add_output(connection, row, kind, stored, now, row.keep_seconds or keep)
                for kind, stored in (("output", output), ("error", errors))
                if stored is not None
            }
            unrun = func.coalesce(func.sum(chunks.c.lines), 0)
            idle = select(unrun).where(chunks.c.batch_id == lease.batch_id, chunks.c.state == "void").scalar_subquery()
            ended = {**made, "failed": batches.c.failed + idle}
            connection.execute(update(batches).where(batches.c.id == lease.batch_id).values(ended))
            return now - float(row.created_at)

    # ----------------------------------------------------------------------- reading

    def chunks(self, batch_id: str) -> list[Chunk]:
        """Return all chunks of a batch, in the order of its lines."""
        with self._database.reading() as connection:
            found = select(chunks).where(chunks.c.batch_id == batch_id).order_by(chunks.c.number)
            return [records.chunk_from_row(row) for row in connection.execute(found)]


def _is_chunk(batch_id: str, number: int) -> ColumnElement[bool]:
    return and_(chunks.c.batch_id == batch_id, chunks.c.number == number)


def _holds(lease: Lease) -> ColumnElement[bool]:
    """The condition that a lease is still the last one on its work."""
    if lease.chunk is None:
        return and_(batches.c.id == lease.batch_id, batches.c.status == lease.status, batches.c.fence == lease.fence)
    return and_(
        _is_chunk(lease.batch_id, lease.chunk.number), chunks.c.state == "leased", chunks.c.fence == lease.fence
    )


def _write(connection: Connection, lease: Lease, **values: Any) -> None:
    table: Table = batches if lease.chunk is None else chunks
    if connection.execute(update(table).where(_holds(lease)).values(values)).rowcount != 1:
        raise LeaseLost(
            f"the lease on {lease.batch_id} with fence {lease.fence} has passed to another worker or was voided"
        )


def _leased(connection: Connection, batch_id: str, fence: int, chunk: Chunk | None = None) -> Lease:
    found = select(batches, files.c.key, files.c.bytes, files.c.digest).join(
        files, files.c.id == batches.c.input_file_id
    )
    row = connection.execute(found.where(batches.c.id == batch_id)).one()
    stored = StoredFile(row.key, row.bytes, row.digest)
    return Lease(row.id, row.endpoint, row.status, row.outcome, stored, fence, chunk, tenant=row.tenant or NO_TENANT)


def _add_output(
    connection: Connection, batch: Row[Any], kind: str, stored: StoredFile, now: float, seconds: float
) -> str:
    return insert_file(connection, now, stored, f"{batch.id}_{kind}.jsonl", "batch_output", seconds, batch.tenant)
