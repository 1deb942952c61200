"""What runners ask: work, for a while, and that its result be taken. Every call is one transaction.

Work is a chunk of a batch, or a whole batch that is to be validated or finished. It is leased; a lease that is not
extended goes to whoever asks next, with a higher fence, and from then on nothing of the older one is taken. So work may
be done twice, and its result counts once.

A transaction that locks both locks the batch before its chunk.
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
    delete,
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
from tureen_serve.batches.records import ENDED, RUNNING, Chunk, Lease, LineRange, StoredFile, Tally, new_id
from tureen_serve.batches.schema import batches, chunks, files
from tureen_serve.batches.shared_writes import UNFINISHED, insert_file, void_unfinished


class LeaseLost(Exception):
    """The lease is another's by now, or its work is void; its result is not taken."""


class Leases:
    """The work that there is.

    Args:
        seconds: how long a lease holds unless it is extended.
    """

    def __init__(self, database: Database, seconds: float) -> None:
        self.owner = new_id("worker-")
        self._database = database
        self._seconds = seconds

    # ----------------------------------------------------------------------- taking

    def take_chunk(self) -> Lease | None:
        """A chunk that nobody works on; None if there is none.

        Of all batches, the one that has come the least far goes first; a chunk whose workers died waits for those
        that killed fewer, so that a deadly line holds up no others.
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
        """A batch that is to be validated, or of which no line is left to run; None if there is none."""
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
        """Hold on to a lease.

        Raises:
            Lost: it is another's, or its work is void.
        """
        with self._database.writing() as connection:
            until = self._database.now(connection) + self._seconds
            _write(connection, lease, leased_until=until)

    def release(self, lease: Lease, wait: float = 0.0, refused: bool = False) -> None:
        """Give work back undone, to be taken again after ``wait`` seconds; a lost lease is nobody's to give.

        Args:
            refused: count it as an attempt that came to nothing.
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
        """The input is valid: its lines may be run, a piece at a time.

        Raises:
            Lost: nothing was begun.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            total = sum(piece.lines for piece in pieces)
            _write(connection, lease, status="in_progress", in_progress_at=now, total=total, leased_until=None)
            rows = [{"batch_id": lease.batch_id, "number": number, **vars(each)} for number, each in enumerate(pieces)]
            connection.execute(insert(chunks), rows)

    def reject(self, lease: Lease, errors: BatchErrors) -> None:
        """The input is not valid: the batch has failed.

        Raises:
            Lost: it is another's to judge.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _write(connection, lease, status="failed", errors=errors.model_dump(), ended_at=now)

    def commit(self, lease: Lease, key: str, tally: Tally) -> None:
        """Take a chunk's result, stored under ``key``. With the last one the batch can be finished.

        Raises:
            Lost: the chunk is another's, or void; nothing of this result counts.
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
        """End a batch: its files become true, kept for ``keep`` seconds unless the batch says otherwise.

        Returns:
            Seconds since the batch was made.

        Raises:
            Lost: another has ended it or is about to.
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

    # ----------------------------------------------------------------------- looking after

    def chunks(self, batch_id: str) -> list[Chunk]:
        """All chunks of a batch, in the order of its lines."""
        with self._database.reading() as connection:
            found = select(chunks).where(chunks.c.batch_id == batch_id).order_by(chunks.c.number)
            return [records.chunk_from_row(row) for row in connection.execute(found)]

    def expire(self) -> int:
        """Void what is left of batches whose time is over; returns how many there are."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            late = select(batches.c.id).where(batches.c.status.in_(RUNNING), batches.c.expires_at <= now)
            names = list(connection.execute(late.with_for_update(skip_locked=True)).scalars())
            for name in names:
                void_unfinished(connection, name, status="finalizing", outcome="expired", finalizing_at=now)
            return len(names)

    def ended(self) -> list[tuple[str, list[str]]]:
        """Batches that have ended and whose traces are not swept, each with the keys that must stay."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(batches.c.id, files.c.key)
                .outerjoin(files, files.c.id.in_((batches.c.output_file_id, batches.c.error_file_id)))
                .where(batches.c.status.in_(ENDED), batches.c.swept.is_(False))
            ).all()
        found: dict[str, list[str]] = {row.id: [] for row in rows}
        for row in rows:
            found[row.id] += [row.key] if row.key else []
        return list(found.items())

    def swept(self, batch_id: str) -> None:
        """Nothing is left of a batch but its own row and its files."""
        with self._database.writing() as connection:
            connection.execute(delete(chunks).where(chunks.c.batch_id == batch_id))
            connection.execute(update(batches).where(batches.c.id == batch_id).values(swept=True))

    def drop_overdue(self) -> list[str]:
        """Forget files whose time is over and which no batch reads; returns the keys of their bytes."""
        with self._database.writing() as connection:
            reads = exists().where(batches.c.input_file_id == files.c.id, batches.c.status.not_in(ENDED))
            late = files.c.expires_at <= self._database.now(connection)
            return list(connection.execute(delete(files).where(late, ~reads).returning(files.c.key)).scalars())

    def census(self) -> tuple[dict[str, int], float]:
        """How many batches are in each state, and the age in seconds of the oldest that has not begun; 0 for none."""
        with self._database.reading() as connection:
            counts = select(batches.c.status, func.count()).group_by(batches.c.status)
            oldest = select(func.min(batches.c.created_at)).where(batches.c.status == "validating")
            first = connection.execute(oldest).scalar()
            age = 0.0 if first is None else max(0.0, self._database.now(connection) - first)
            return dict(connection.execute(counts).all()), age


def _is_chunk(batch_id: str, number: int) -> ColumnElement[bool]:
    return and_(chunks.c.batch_id == batch_id, chunks.c.number == number)


def _holds(lease: Lease) -> ColumnElement[bool]:
    """Whether a lease is still the last one of its work."""
    if lease.chunk is None:
        return and_(batches.c.id == lease.batch_id, batches.c.status == lease.status, batches.c.fence == lease.fence)
    return and_(
        _is_chunk(lease.batch_id, lease.chunk.number), chunks.c.state == "leased", chunks.c.fence == lease.fence
    )


def _write(connection: Connection, lease: Lease, **values: Any) -> None:
    table: Table = batches if lease.chunk is None else chunks
    if connection.execute(update(table).where(_holds(lease)).values(values)).rowcount != 1:
        raise LeaseLost(f"{lease.batch_id} is no more leased under fence {lease.fence}")


def _leased(connection: Connection, batch_id: str, fence: int, chunk: Chunk | None = None) -> Lease:
    found = select(batches, files.c.key, files.c.bytes, files.c.digest).join(
        files, files.c.id == batches.c.input_file_id
    )
    row = connection.execute(found.where(batches.c.id == batch_id)).one()
    stored = StoredFile(row.key, row.bytes, row.digest)
    return Lease(row.id, row.endpoint, row.status, row.outcome, stored, fence, chunk)


def _add_output(
    connection: Connection, batch: Row[Any], kind: str, stored: StoredFile, now: float, seconds: float
) -> str:
    return insert_file(connection, now, stored, f"{batch.id}_{kind}.jsonl", "batch_output", seconds)
