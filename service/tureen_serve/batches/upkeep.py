"""Transactions that keep the tables in order and need no lease: expiry, removal of leftovers, counts."""

from sqlalchemy import delete, exists, func, select, update

from tureen_serve.batches.database import Database
from tureen_serve.batches.records import ENDED, RUNNING
from tureen_serve.batches.schema import batches, chunks, files
from tureen_serve.batches.shared_writes import void_unfinished


class Upkeep:
    """Keeps the tables of one database in order. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def expire_batches(self) -> int:
        """Void the unfinished lines of batches whose completion window has closed; returns the number of batches."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            late = select(batches.c.id).where(batches.c.status.in_(RUNNING), batches.c.expires_at <= now)
            names = list(connection.execute(late.with_for_update(skip_locked=True)).scalars())
            for name in names:
                void_unfinished(connection, name, status="finalizing", outcome="expired", finalizing_at=now)
            return len(names)

    def find_unswept(self) -> list[tuple[str, list[str]]]:
        """Find ended batches whose chunk files are still stored, each with the keys of the files to keep."""
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

    def mark_swept(self, batch_id: str) -> None:
        """Forget the chunks of a batch whose chunk files were removed."""
        with self._database.writing() as connection:
            connection.execute(delete(chunks).where(chunks.c.batch_id == batch_id))
            connection.execute(update(batches).where(batches.c.id == batch_id).values(swept=True))

    def delete_overdue_files(self) -> list[str]:
        """Delete files that have expired and that no running batch reads; returns the keys of their bytes."""
        with self._database.writing() as connection:
            reads = exists().where(batches.c.input_file_id == files.c.id, batches.c.status.not_in(ENDED))
            late = files.c.expires_at <= self._database.now(connection)
            return list(connection.execute(delete(files).where(late, ~reads).returning(files.c.key)).scalars())

    def count_batches(self) -> tuple[dict[str, int], float]:
        """Count batches by state; also returns the age in seconds of the oldest that has not begun, 0 for none."""
        with self._database.reading() as connection:
            counts = select(batches.c.status, func.count()).group_by(batches.c.status)
            oldest = select(func.min(batches.c.created_at)).where(batches.c.status == "validating")
            first = connection.execute(oldest).scalar()
            age = 0.0 if first is None else max(0.0, self._database.now(connection) - first)
            return dict(connection.execute(counts).all()), age
