"""Run a file of requests through a batch: upload it, create the batch, wait, and save the results.

Each step is written to the sidecar before the next begins, so a killed run continues from the last step. A batch that
was created but not yet noted is found again by its idempotency key.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tureen.atomic_files import replace_atomically
from tureen.batch_jobs.input_lines import find_line_number, read_requests
from tureen.batch_jobs.sidecar import REMEDY, Note, Sidecar, Work, hash_file
from tureen.batches.batch_flows import OUTAGE, OnProgress
from tureen.client import Client
from tureen.errors import Conflict, NotFound, Unprocessable
from tureen.wire import Batch, BatchError, Endpoint

SHOWN = 10  # errors of lines in one message
OFTEN = 2.0  # the longest pause between two polls, in seconds


@dataclass(frozen=True)
class Job:
    """The input, the output files and the options of one run.

    Attributes:
        source: the input file, as :mod:`tureen.batch_jobs.input_lines` reads it.
        target: the file for the results of lines that succeeded.
        errors: the file for lines that failed.
        endpoint: the route that every line is sent to.
        window: how long the batch may take.
    """

    source: Path
    target: Path
    errors: Path
    endpoint: Endpoint
    window: str

    def work(self) -> Work:
        """Return what identifies this job: the input's digest, the endpoint and the window."""
        return Work(input=hash_file(self.source), endpoint=self.endpoint, window=self.window)

    def has_results(self, batch: Batch) -> bool:
        """Return whether the output files of ``batch`` exist."""
        return self.target.exists() and (batch.error_file_id is None or self.errors.exists())


def run_job(
    client: Client, job: Job, on_progress: OnProgress, *, restart: bool = False, outage: float = OUTAGE
) -> Batch:
    """Run the job, or continue an interrupted one. Results that are already saved are not computed again.

    Args:
        client: the connection to the server.
        job: the files and options.
        on_progress: called with the batch after each poll.
        restart: cancel the batch of an earlier run and start again.
        outage: seconds to wait for a server that answered once and is now unreachable.

    Returns:
        The ended batch. Its results are saved.

    Raises:
        Conflict: the target belongs to another job.
        NotFound: the server no longer has the file or batch of the earlier run.
        Unprocessable: a line is invalid.
        TureenError: a request failed.
        OSError: a file cannot be read or written.
    """
    sidecar = Sidecar(job.target)
    if restart:
        _discard_run(client, sidecar)
    note = _continue_or_start(client, job, sidecar)
    if note.ended and job.has_results(note.ended):
        return note.ended
    with _name_server(note):
        batch_id = note.batch_id or _create_batch(client, job, sidecar, note)
        batch = client.batches.wait(batch_id, on_progress=on_progress, longest_pause=OFTEN, outage=outage)
        if batch.status == "failed":
            sidecar.remove()
            raise explain_rejection(batch, job.source)
        save_results(client, batch, job.target, job.errors)
    sidecar.write(note.model_copy(update={"file_id": batch.input_file_id, "batch_id": batch.id, "ended": batch}))
    return batch


def submit_file(client: Client, source: Path, endpoint: Endpoint, window: str) -> Batch:
    """Upload a file and create its batch without waiting for it. Raises the errors of :func:`run_job`."""
    uploaded = client.files.upload(read_requests(source, endpoint), name=source.name)
    return client.batches.create(uploaded.id, endpoint, window)


def save_results(client: Client, batch: Batch, target: Path, errors: Path) -> None:
    """Save the output and error files of an ended batch.

    A batch without errors has no error file: one left by an earlier run is deleted. Without
    output the target is empty.
    """
    if batch.error_file_id is None:
        errors.unlink(missing_ok=True)
    else:
        client.files.save(batch.error_file_id, errors)
    if batch.output_file_id is None:
        with replace_atomically(target) as part:
            part.touch()
    else:
        client.files.save(batch.output_file_id, target)


def explain_rejection(batch: Batch, source: Path | None = None) -> Unprocessable:
    """Return the error for a batch whose input was rejected. It names lines of ``source``, if that is given."""
    errors = batch.errors.data if batch.errors else []
    lines = [f"  {_locate_line(error, source)}{error.message}" for error in errors[:SHOWN]]
    more = [f"  and {len(errors) - SHOWN} more"] if len(errors) > SHOWN else []
    return Unprocessable("\n".join([f"{batch.id} ran no lines because its input file is invalid:", *lines, *more]))


def _locate_line(error: BatchError, source: Path | None) -> str:
    if error.line is None:
        return ""
    return f"line {error.line}: " if source is None else f"{source}, line {find_line_number(source, error.line)}: "


def _continue_or_start(client: Client, job: Job, sidecar: Sidecar) -> Note:
    """Return the note of the run to continue, or write one for a new run."""
    work, note = job.work(), sidecar.read()
    if note is None or note.file_id is None:  # nothing was sent yet
        return sidecar.write(Note(work=work, server=client.base_url))
    differs = [name for name, value in work if value != getattr(note.work, name)]
    if differs:
        message = f"{job.target} was started with another {' and '.join(differs)}: {REMEDY}"
        raise Conflict(message, param=differs[0], code="other_work")
    return note


def _create_batch(client: Client, job: Job, sidecar: Sidecar, note: Note) -> str:
    if note.file_id is None:
        uploaded = client.files.upload(read_requests(job.source, job.endpoint), name=job.source.name)
        note = sidecar.write(note.model_copy(update={"file_id": uploaded.id}))
    batch = client.batches.create(note.file_id or "", job.endpoint, job.window, idempotency_key=note.key)
    sidecar.write(note.model_copy(update={"batch_id": batch.id}))
    return batch.id


def _discard_run(client: Client, sidecar: Sidecar) -> None:
    """Cancel the batch of the earlier run if it still runs, and delete its note."""
    try:
        note = sidecar.read()
        if note is not None and note.batch_id is not None and note.ended is None:
            client.batches.cancel(note.batch_id)
    except (Conflict, NotFound):
        pass  # it has ended or is gone, so there is nothing to cancel
    sidecar.remove()


@contextmanager
def _name_server(note: Note) -> Iterator[None]:
    """Add the server of the earlier run to a ``NotFound``: the batch may be on that server."""
    try:
        yield
    except NotFound as error:
        if note.file_id is None:
            raise
        message = (
            f"{error.message}; this run was started at {note.server}: continue it there, or start again with --restart"
        )
        raise type(error)(message, param=error.param, code=error.code, request_id=error.request_id) from error
