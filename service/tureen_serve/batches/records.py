"""Rows of the tables as objects: the wire's files and batches, and the worker's chunks and leases. Pure."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from tureen.wire import Batch, BatchErrors, BatchStatus, BatchUsage, File, RequestCounts
from tureen_serve.inference.demand import NO_TENANT

ENDED: tuple[BatchStatus, ...] = ("failed", "completed", "expired", "cancelled")
RUNNING: tuple[BatchStatus, ...] = ("validating", "in_progress")


def new_id(prefix: str) -> str:
    """Make a random id, which cannot be guessed."""
    return prefix + secrets.token_hex(16)


@dataclass(frozen=True)
class StoredFile:
    """A file in the file store: its key, its size in bytes and its SHA-256."""

    key: str
    bytes: int
    digest: str


@dataclass(frozen=True)
class Viewer:
    """Whose files and batches a caller makes, and which the caller finds.

    Attributes:
        tenant: what the caller makes belongs to it.
        sees_all: whether the caller finds those of all tenants, and not only those of its own.
    """

    tenant: str = NO_TENANT
    sees_all: bool = True


EVERYBODY = Viewer()


@dataclass(frozen=True)
class Tally:
    """Counts over the lines of a result: lines answered, lines with errors, tokens."""

    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class LineRange:
    """Consecutive lines of an input file that are run together: ``length`` bytes from ``start``."""

    first_line: int
    lines: int
    start: int
    length: int


@dataclass(frozen=True)
class Chunk:
    """A chunk of a batch: the unit of work.

    Attributes:
        key: where its result is stored; None if it was never run.
        completed, failed: lines of its result.
        deaths: leases on it that ran out, because the worker died or hung.
        refusals: attempts that failed as a whole.
    """

    number: int
    piece: LineRange
    key: str | None = None
    completed: int = 0
    failed: int = 0
    deaths: int = 0
    refusals: int = 0


@dataclass(frozen=True)
class Lease:
    """The right to work on a batch, or on one chunk of it, for a limited time. A newer lease has a higher fence.

    Attributes:
        status: the batch's status when the lease was taken.
        outcome: the status in which a finalizing or cancelling batch will end.
        input: the batch's input file.
        tenant: whose batch it is.
    """

    batch_id: str
    endpoint: str
    status: BatchStatus
    outcome: BatchStatus | None
    input: StoredFile
    fence: int
    chunk: Chunk | None = None
    tenant: str = NO_TENANT


def file_from_row(row: Row[Any]) -> File:
    """Make the wire's file object."""
    return File(
        id=row.id,
        bytes=row.bytes,
        created_at=int(row.created_at),
        expires_at=int(row.expires_at),
        filename=row.filename,
        purpose=row.purpose,
    )


def batch_from_row(row: Row[Any]) -> Batch:
    """Make the wire's batch object."""
    return Batch(
        id=row.id,
        endpoint=row.endpoint,
        errors=BatchErrors.model_validate(row.errors) if row.errors else None,
        input_file_id=row.input_file_id,
        completion_window=row.window,
        status=row.status,
        output_file_id=row.output_file_id,
        error_file_id=row.error_file_id,
        request_counts=RequestCounts(total=row.total, completed=row.completed, failed=row.failed),
        usage=BatchUsage(
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            total_tokens=row.input_tokens + row.output_tokens,
        ),
        metadata=row.metadata,
        **_times(row),
    )


def _times(row: Row[Any]) -> Mapping[str, Any]:
    times = {
        "created_at": row.created_at,
        "in_progress_at": row.in_progress_at,
        "expires_at": row.expires_at,
        "finalizing_at": row.finalizing_at,
        "cancelling_at": row.cancelling_at,
    }
    if row.status in ENDED:
        times[f"{row.status}_at"] = row.ended_at
    return {name: None if time is None else int(time) for name, time in times.items()}


def chunk_from_row(row: Row[Any]) -> Chunk:
    """Make a chunk."""
    piece = LineRange(row.first_line, row.lines, row.start, row.length)
    return Chunk(row.number, piece, row.key, row.completed, row.failed, row.deaths, row.refusals)
