"""Files and batches for the routes: create, get, list, cancel, delete. Every method is one transaction.

Nothing here runs a batch; :mod:`tureen_serve.batches.leases` gives out that work.
"""

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Table, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from tureen.errors import Conflict, NotFound, Unprocessable
from tureen.wire import Batch, BatchList, BatchRequest, File, FileList, Purpose
from tureen_serve.batches import records
from tureen_serve.batches.database import Database
from tureen_serve.batches.records import ENDED, EVERYBODY, RUNNING, StoredFile, Viewer, new_id
from tureen_serve.batches.schema import batches, claims, files
from tureen_serve.batches.shared_writes import insert_file, void_unfinished
from tureen_serve.inference.demand import NO_TENANT

DAY = 86400
KEPT_CLAIM = DAY
STALE_CLAIM = 60


class Store:
    """Files, batches, and the batches that idempotency keys have created.

    Args:
        keep_days: how long a file is kept unless its upload sets a time.
    """

    def __init__(self, database: Database, keep_days: int = 30) -> None:
        self._database = database
        self._keep = keep_days * DAY

    # ----------------------------------------------------------------------- files

    def add_file(
        self,
        stored: StoredFile,
        filename: str,
        purpose: Purpose = "batch",
        seconds: int | None = None,
        viewer: Viewer = EVERYBODY,
    ) -> File:
        """Record a file whose bytes are stored; it is kept for ``seconds`` and belongs to the viewer's tenant."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            found = insert_file(connection, now, stored, filename, purpose, seconds or self._keep, viewer.tenant)
            return records.file_from_row(_file(connection, found, viewer))

    def get_file(self, name: str, viewer: Viewer = EVERYBODY) -> tuple[File, StoredFile]:
        """Return a file, and where its bytes are stored.

        Raises:
            NotFound: there is no such file.
        """
        with self._database.reading() as connection:
            row = _file(connection, name, viewer)
            return records.file_from_row(row), StoredFile(row.key, row.bytes, row.digest)

    def list_files(
        self,
        limit: int,
        after: str | None = None,
        purpose: Purpose | None = None,
        order: Literal["asc", "desc"] = "desc",
        viewer: Viewer = EVERYBODY,
    ) -> FileList:
        """Return the page of files that follows the file ``after``."""
        with self._database.reading() as connection:
            where = _visible(files, viewer) + ([files.c.purpose == purpose] if purpose else [])
            page, more = _page(connection, files, limit, after, order, where)
        data = [records.file_from_row(row) for row in page]
        return FileList(data=data, has_more=more, **_ends(data))

    def delete_file(self, name: str, viewer: Viewer = EVERYBODY) -> str:
        """Delete a file's row; returns the key of its bytes, which the caller removes.

        Raises:
            NotFound: there is no such file.
            Conflict: a batch that has not ended reads it.
        """
        with self._database.writing() as connection:
            key: str = _file(connection, name, viewer, lock=True).key
            reads = (batches.c.input_file_id == name) & batches.c.status.not_in(ENDED)
            user = connection.execute(select(batches.c.id).where(reads).limit(1)).scalar()
            if user is not None:
                raise Conflict(f"{user} still reads this file; cancel it first", param="file_id", code="file_in_use")
            connection.execute(delete(files).where(files.c.id == name))
            return key

    # ----------------------------------------------------------------------- batches

    def claim_key(self, key: str, fingerprint: str) -> Batch | None:
        """Begin to answer a request under an idempotency key.

        Args:
            key: of one tenant.
            fingerprint: SHA-256 of the request.

        Returns:
            The batch that the same request made before; None if it is now to be made.

        Raises:
            Unprocessable: the key was used for another request.
            Conflict: the same request is being answered at the moment.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            gone = (claims.c.claimed_at < now - KEPT_CLAIM) | (
                claims.c.batch_id.is_(None) & (claims.c.claimed_at < now - STALE_CLAIM)
            )
            connection.execute(delete(claims).where(gone))
            row = connection.execute(select(claims).where(claims.c.key == key)).one_or_none()
            if row is None:
                _enter_claim(connection, key, fingerprint, now)
                return None
            if row.fingerprint != fingerprint:
                message = "this Idempotency-Key was used for a different request; give each request its own key"
                raise Unprocessable(message, param="Idempotency-Key", code="idempotency_key_reused")
            if row.batch_id is None:
                raise _in_flight()
            return records.batch_from_row(_batch(connection, row.batch_id, EVERYBODY))

    def release_key(self, key: str) -> None:
        """Release a key whose request created nothing, so that it may be sent again."""
        with self._database.writing() as connection:
            connection.execute(delete(claims).where((claims.c.key == key) & claims.c.batch_id.is_(None)))

    def create_batch(self, request: BatchRequest, key: str | None = None, viewer: Viewer = EVERYBODY) -> Batch:
        """Create a batch, to be validated, and record it as the answer to the idempotency key ``key``.

        Raises:
            NotFound: there is no such input file.
            Unprocessable: the file is not the input of a batch.
        """
        name = new_id("batch_")
        with self._database.writing() as connection:
            now = self._database.now(connection)
            source = _file(connection, request.input_file_id, viewer, "input_file_id", lock=True)
            if source.expires_at <= now:
                raise NotFound(f"input_file_id: {source.id} has expired; upload the file again", param="input_file_id")
            if source.purpose != "batch":
                message = f"input_file_id: {source.id} is the output of a batch; upload a file for the purpose `batch`"
                raise Unprocessable(message, param="input_file_id")
            row = {
                "id": name,
                "endpoint": request.endpoint,
                "window": request.completion_window,
                "metadata": request.metadata,
                "input_file_id": request.input_file_id,
                "keep_seconds": request.output_expires_after.seconds if request.output_expires_after else None,
                "status": "validating",
                "created_at": now,
                "expires_at": now + request.seconds(),
                "tenant": viewer.tenant,
            }
            connection.execute(insert(batches).values(row))
            if key is not None:
                connection.execute(update(claims).where(claims.c.key == key).values(batch_id=name))
            return records.batch_from_row(_batch(connection, name, viewer))

    def get_batch(self, name: str, viewer: Viewer = EVERYBODY) -> Batch:
        """Return a batch in its current state.

        Raises:
            NotFound: there is no such batch.
        """
        with self._database.reading() as connection:
            return records.batch_from_row(_batch(connection, name, viewer))

    def list_batches(self, limit: int, after: str | None = None, viewer: Viewer = EVERYBODY) -> BatchList:
        """Return the page of batches that follows the batch ``after``, the newest first."""
        with self._database.reading() as connection:
            page, more = _page(connection, batches, limit, after, "desc", _visible(batches, viewer))
        data = [records.batch_from_row(row) for row in page]
        return BatchList(data=data, has_more=more, **_ends(data))

    def cancel_batch(self, name: str, viewer: Viewer = EVERYBODY) -> Batch:
        """Cancel a batch: from now on none of its lines is begun, and its unfinished chunks are voided.

        Raises:
            NotFound: there is no such batch.
            Conflict: the batch has ended, or is about to.
        """
        with self._database.writing() as connection:
            status = _batch(connection, name, viewer, lock=True).status
            if status in RUNNING:
                now = self._database.now(connection)
                void_unfinished(connection, name, status="cancelling", outcome="cancelled", cancelling_at=now)
            elif status not in ("cancelling", "cancelled"):
                message = f"{name} is {status.replace('_', ' ')} and cannot be cancelled any more"
                raise Conflict(message, param="batch_id", code="batch_not_cancellable")
            return records.batch_from_row(_batch(connection, name, viewer))


def _visible(table: Table, viewer: Viewer) -> list[ColumnElement[bool]]:
    """The conditions for rows that the viewer finds. A row from before there were tenants is one of no tenant."""
    return [] if viewer.sees_all else [func.coalesce(table.c.tenant, NO_TENANT) == viewer.tenant]


def _file(connection: Connection, name: str, viewer: Viewer, param: str = "file_id", lock: bool = False) -> Row[Any]:
    found = select(files).where(files.c.id == name, *_visible(files, viewer))
    row = connection.execute(found.with_for_update() if lock else found).one_or_none()
    if row is None:
        raise NotFound(f"there is no file {name!r}", param=param, code="file_not_found")
    return row


def _batch(connection: Connection, name: str, viewer: Viewer, lock: bool = False) -> Row[Any]:
    found = select(batches).where(batches.c.id == name, *_visible(batches, viewer))
    row = connection.execute(found.with_for_update() if lock else found).one_or_none()
    if row is None:
        raise NotFound(f"there is no batch {name!r}", param="batch_id", code="batch_not_found")
    return row


def _page(
    connection: Connection, table: Table, limit: int, after: str | None, order: Literal["asc", "desc"], where: list[Any]
) -> tuple[list[Row[Any]], bool]:
    """Return rows ordered by time and id, and whether more follow. ``after`` must fulfil the conditions too."""
    place = tuple_(table.c.created_at, table.c.id)
    if after is not None:
        known = select(table.c.created_at, table.c.id).where(table.c.id == after, *where)
        row = connection.execute(known).one_or_none()
        if row is None:
            raise NotFound(f"after: there is no {after!r}", param="after")
        where = [*where, place < tuple(row) if order == "desc" else place > tuple(row)]
    sorting = [column.desc() if order == "desc" else column for column in (table.c.created_at, table.c.id)]
    rows = connection.execute(select(table).where(*where).order_by(*sorting).limit(limit + 1)).all()
    return list(rows[:limit]), len(rows) > limit


def _ends(data: list[Any]) -> Mapping[str, str | None]:
    return {"first_id": data[0].id if data else None, "last_id": data[-1].id if data else None}


def _enter_claim(connection: Connection, key: str, fingerprint: str, now: float) -> None:
    try:
        connection.execute(insert(claims).values(key=key, fingerprint=fingerprint, claimed_at=now))
    except IntegrityError:  # another replica was quicker
        raise _in_flight() from None


def _in_flight() -> Conflict:
    message = "a request with this Idempotency-Key is being answered; send it again to get its answer"
    return Conflict(message, param="Idempotency-Key", code="idempotency_in_flight", retry_after=1)
