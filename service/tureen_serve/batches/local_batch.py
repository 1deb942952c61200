"""A batch in this process: reads a file, writes files, and keeps a folder from which a later run resumes."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tureen.batch_jobs.input_lines import read_requests
from tureen.errors import InvalidRequest, Unavailable
from tureen.wire import Batch, BatchRequest, Endpoint, RequestCounts
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.batches.batch_service import BatchService, OpenStores
from tureen_serve.batches.endpoints import BatchEndpoints
from tureen_serve.batches.records import ENDED
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics

WINDOW = "9999h"
LEASE_SECONDS = 5.0
POLL_SECONDS = 0.2

Watch = Callable[[RequestCounts], None]


@dataclass(frozen=True)
class LocalBatch:
    """The files of a batch in this process.

    Attributes:
        source: the input file, as :mod:`tureen.batch_jobs.input_lines` reads it.
        target: the file for the results of good lines.
        errors: the file for lines that failed.
        endpoint: the endpoint of every line.
        restart: discard an earlier run and replace its files.
    """

    source: Path
    target: Path
    errors: Path
    endpoint: Endpoint
    restart: bool = False

    @property
    def state(self) -> Path:
        """The folder of an unfinished run, beside the target and so on the same disk."""
        return self.target.with_name(f"{self.target.name}.unfinished")


async def run_local_batch(
    job: LocalBatch, endpoints: BatchEndpoints, engine: Engine, options: BatchSettings, watch: Watch
) -> Batch:
    """Run every line of a file, or resume an earlier run; ``watch`` gets the counts as they grow.

    Returns:
        The ended batch: completed with its files written, or failed with the errors of the input.

    Raises:
        InvalidRequest: the target exists, or the unfinished run is of another input.
        Unavailable: a runtime is dead; the results are kept.
        Unprocessable: a line cannot be made a request.
        TureenError: the file store or the database cannot be used.
    """
    digest = await asyncio.to_thread(_digest, job)
    if job.restart:
        shutil.rmtree(job.state, ignore_errors=True)
    elif job.target.exists() and not job.state.exists():
        raise InvalidRequest(f"{job.target} exists already; name another file, or replace it with --restart")
    stores = {"folder": job.state, "store": None, "files": None, "worker": True, "enabled": True}
    pace = {"lease_seconds": LEASE_SECONDS, "poll_seconds": POLL_SECONDS}
    batches = BatchService(options.model_copy(update=stores | pace), endpoints, lambda: engine, Metrics())
    try:
        opened = await batches.connect()
        batch = await batches.io(_begin, opened, job, digest)
        while batch.status not in ENDED:
            watch(batch.request_counts)
            if engine.death:
                dead = Unavailable(engine.death, code="engine_dead")
                engine.abandon(dead)
                raise dead
            await asyncio.sleep(POLL_SECONDS)
            batch = await batches.io(opened.store.get_batch, batch.id)
        watch(batch.request_counts)
        if batch.status == "completed":
            await batches.io(_write, opened, batch, job)
    finally:
        await batches.close()
    shutil.rmtree(job.state)
    return batch


def _begin(opened: OpenStores, job: LocalBatch, digest: str) -> Batch:
    """Return the batch that an earlier run began with this input, else a new one."""
    begun = opened.store.list_batches(limit=1).data
    if not begun:
        stored = opened.files.write("uploads/input", read_requests(job.source, job.endpoint))
        file = opened.store.add_file(stored, job.source.name)
        request = BatchRequest(input_file_id=file.id, endpoint=job.endpoint, completion_window=WINDOW)
        return opened.store.create_batch(request)
    _, stored = opened.store.get_file(begun[0].input_file_id)
    if digest != stored.digest:
        message = f"the unfinished run in {job.state} has another input than {job.source} now"
        raise InvalidRequest(f"{message}; name another target, or discard it with --restart")
    return begun[0]


def _digest(job: LocalBatch) -> str:
    """Return the SHA-256 of the requests that the input makes."""
    digest = hashlib.sha256()
    for part in read_requests(job.source, job.endpoint):
        digest.update(part)
    return digest.hexdigest()


def _write(opened: OpenStores, batch: Batch, job: LocalBatch) -> None:
    """Write both files, the target last: once it exists, all is done. Without errors, an old error file is removed."""
    if batch.error_file_id is None:
        job.errors.unlink(missing_ok=True)
    else:
        _copy(opened, batch.error_file_id, job.errors)
    _copy(opened, batch.output_file_id, job.target)


def _copy(opened: OpenStores, name: str | None, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    with part.open("wb") as file:
        for each in opened.files.read(opened.store.get_file(name)[1].key) if name else ():
            file.write(each)
    os.replace(part, target)
