"""A file run through a batch: uploaded, created, waited for and collected, each step noted before the next.

Whoever is killed between two steps is followed by one who goes on from the last note. A batch that was created and not
noted is found again by its key.
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

SHOWN = 10
OFTEN = 2.0


@dataclass(frozen=True)
class Job:
    """What is to be made of what.

    Attributes:
        source: the input, as :mod:`tureen.batch_jobs.input_lines` reads it.
        target: where the results of good lines go.
        errors: where the others go.
        endpoint: where every line goes.
        window: how long the batch may take.
    """

    source: Path
    target: Path
    errors: Path
    endpoint: Endpoint
    window: str

    def work(self) -> Work:
        """What tells this job from any other."""
        return Work(input=hash_file(self.source), endpoint=self.endpoint, window=self.window)

    def has_results(self, batch: Batch) -> bool:
        """Whether what the batch has made is where it should be."""
        return self.target.exists() and (batch.error_file_id is None or self.errors.exists())


def run_job(
    client: Client, job: Job, on_progress: OnProgress, *, restart: bool = False, outage: float = OUTAGE
) -> Batch:
    """Make the target, or go on with it where an earlier call was interrupted; what is finished is not made again.

    Args:
        client: asks the server.
        job: what is to be made.
        on_progress: told of the batch at every look.
        restart: forget an earlier call, and cancel its batch.
        outage: seconds for which a server that answered once may be away.

    Returns:
        The batch as it ended, its results in their places.

    Raises:
        Conflict: something else was begun there.
        NotFound: the server does not know any more what was begun.
        Unprocessable: a line cannot be used.
        TureenError: the server cannot be asked.
        OSError: a file cannot be read or written.
    """
    sidecar = Sidecar(job.target)
    if restart:
        _forget(client, sidecar)
    note = _taken_up(client, job, sidecar)
    if note.ended and job.has_results(note.ended):
        return note.ended
    with _same_server(note):
        batch_id = note.batch_id or _created(client, job, sidecar, note)
        batch = client.batches.wait(batch_id, on_progress=on_progress, longest_pause=OFTEN, outage=outage)
        if batch.status == "failed":
            sidecar.remove()
            raise explain_rejection(batch, job.source)
        save_results(client, batch, job.target, job.errors)
    sidecar.write(note.model_copy(update={"file_id": batch.input_file_id, "batch_id": batch.id, "ended": batch}))
    return batch


def submit_file(client: Client, source: Path, endpoint: Endpoint, window: str) -> Batch:
    """Upload a file and make a batch of it, without waiting for it; errors are those of :func:`run`."""
    uploaded = client.files.upload(read_requests(source, endpoint), name=source.name)
    return client.batches.create(uploaded.id, endpoint, window)


def save_results(client: Client, batch: Batch, target: Path, errors: Path) -> None:
    """Write what an ended batch has made. An error file of before goes where there are no errors now."""
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
    """The error of a batch whose input could not be used; places are those in ``source``, if it is known."""
    errors = batch.errors.data if batch.errors else []
    told = [f"  {_place(error, source)}{error.message}" for error in errors[:SHOWN]]
    more = [f"  and {len(errors) - SHOWN} more"] if len(errors) > SHOWN else []
    return Unprocessable("\n".join([f"{batch.id} has run no line, because its input cannot be used:", *told, *more]))


def _place(error: BatchError, source: Path | None) -> str:
    if error.line is None:
        return ""
    return f"line {error.line}: " if source is None else f"{source}, line {find_line_number(source, error.line)}: "


def _taken_up(client: Client, job: Job, sidecar: Sidecar) -> Note:
    work, note = job.work(), sidecar.read()
    if note is None or note.file_id is None:  # nothing was sent yet
        return sidecar.write(Note(work=work, server=client.base_url))
    differs = [name for name, value in work if value != getattr(note.work, name)]
    if differs:
        told = f"{job.target} was begun with another {' and '.join(differs)}: {REMEDY}"
        raise Conflict(told, param=differs[0], code="other_work")
    return note


def _created(client: Client, job: Job, sidecar: Sidecar, note: Note) -> str:
    if note.file_id is None:
        uploaded = client.files.upload(read_requests(job.source, job.endpoint), name=job.source.name)
        note = sidecar.write(note.model_copy(update={"file_id": uploaded.id}))
    batch = client.batches.create(note.file_id or "", job.endpoint, job.window, idempotency_key=note.key)
    sidecar.write(note.model_copy(update={"batch_id": batch.id}))
    return batch.id


def _forget(client: Client, sidecar: Sidecar) -> None:
    try:
        note = sidecar.read()
        if note is not None and note.batch_id is not None and note.ended is None:
            client.batches.cancel(note.batch_id)
    except (Conflict, NotFound):
        pass  # there is nothing of it to be saved
    sidecar.remove()


@contextmanager
def _same_server(note: Note) -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        if note.file_id is None:
            raise
        told = f"{error.message}; this was begun at {note.server}: go on there, or begin anew with --restart"
        raise type(error)(told, param=error.param, code=error.code, request_id=error.request_id) from error
