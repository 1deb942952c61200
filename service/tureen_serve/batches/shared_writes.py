"""Writes that both :mod:`store` and :mod:`leases` need. Each runs within its caller's transaction."""

from typing import Any

from sqlalchemy import Connection, insert, update

from tureen.wire import Purpose
from tureen_serve.batches.records import StoredFile, new_id
from tureen_serve.batches.schema import batches, chunks, files

UNFINISHED = ("waiting", "leased")


def insert_file(
    connection: Connection,
    now: float,
    stored: StoredFile,
    filename: str,
    purpose: Purpose,
    seconds: float,
    tenant: str | None,
) -> str:
    """Insert the row of a tenant's stored file that is kept for ``seconds``; returns its id."""
    name = new_id("file-")
    row = {"id": name, "purpose": purpose, "filename": filename, "created_at": now, "expires_at": now + seconds}
    connection.execute(insert(files).values(row | vars(stored) | {"tenant": tenant}))
    return name


def void_unfinished(connection: Connection, batch_id: str, **values: Any) -> None:
    """Void a batch's unfinished chunks, refuse the results of running ones, and write ``values`` on the batch."""
    taken = {**values, "fence": batches.c.fence + 1, "leased_until": None}
    connection.execute(update(batches).where(batches.c.id == batch_id).values(taken))
    unfinished = (chunks.c.batch_id == batch_id) & chunks.c.state.in_(UNFINISHED)
    connection.execute(update(chunks).where(unfinished).values(state="void", fence=chunks.c.fence + 1))
