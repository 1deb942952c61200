"""``client.files`` and ``client.batches`` of the blocking client: the methods that users call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from tureen.atomic_files import replace_atomically
from tureen.batches.batch_flows import OUTAGE, BatchCalls, FileCalls, OnProgress
from tureen.batches.content import Content
from tureen.batches.uploads import Source, open_form
from tureen.calls.call_options import BatchOptions
from tureen.calls.request_flows import Calls
from tureen.calls.senders import RunFlow
from tureen.wire import Batch, Endpoint, File, FileDeleted, Purpose

DAY = "24h"
RARELY = 10.0


class Files:
    """Files on the server, for batches.

        file = client.files.upload("requests.jsonl")
        client.files.save(batch.output_file_id, "results.jsonl")

    Every method takes ``deadline``, the longest time for the whole call in seconds.
    """

    def __init__(self, run: RunFlow, calls: Calls) -> None:
        self._run = run
        self._calls = FileCalls(calls)

    def upload(
        self,
        source: Source,
        *,
        name: str | None = None,
        expires_after: int | None = None,
        deadline: float | None = None,
    ) -> File:
        """Upload the input file of a batch: JSON Lines with ``custom_id``, ``method``, ``url`` and ``body``.

        Args:
            source: the path of a file, its bytes, or an iterable of its lines. A line is a dict, a ``wire.InputLine``,
                or bytes or text with its line end. The file is not loaded into memory as a whole.
            name: the file's name on the server; by default its name on the disk.
            expires_after: the server deletes the file after this time, in seconds.
            deadline: the longest time for the whole call, in seconds.

        Raises:
            PayloadTooLarge: the file is larger than the server's limit.
            OSError: the file cannot be read.
        """
        with open_form(source, name, expires_after) as uploaded:
            return self._run(self._calls.upload(uploaded, deadline))

    def get(self, file_id: str, *, deadline: float | None = None) -> File:
        """Return the metadata of a file.

        Raises:
            NotFound: there is no file with this id.
        """
        return self._run(self._calls.get(file_id, deadline))

    def list(
        self, *, purpose: Purpose | None = None, limit: int | None = None, deadline: float | None = None
    ) -> Sequence[File]:
        """List all files, or the newest ``limit`` of them, the newest first."""
        return self._run(self._calls.list_all(purpose, limit, deadline))

    def content(self, file_id: str, *, deadline: float | None = None) -> Content:
        """Return the lines of a file, to be iterated while it is downloaded. Raises the errors of :meth:`get`."""
        return Content(*self._run(self._calls.open(file_id, deadline)))

    def save(self, file_id: str, path: str | Path, *, deadline: float | None = None) -> Path:
        """Download a file to ``path``. If this fails, ``path`` is unchanged. Raises the errors of :meth:`get`."""
        with replace_atomically(Path(path)) as part:
            self._run(self._calls.save(file_id, part, deadline))
        return Path(path)

    def delete(self, file_id: str, *, deadline: float | None = None) -> FileDeleted:
        """Delete a file.

        Raises:
            NotFound: there is no file with this id.
            Conflict: a batch still uses the file.
        """
        return self._run(self._calls.delete(file_id, deadline))


class Batches:
    """Batches: jobs that run every line of a file as a request.

        batch = client.batches.create(file.id, "/v1/score")
        batch = client.batches.wait(batch.id)

    Every method takes ``deadline``, the longest time for the whole call in seconds.
    """

    def __init__(self, run: RunFlow, calls: Calls) -> None:
        self._run = run
        self._calls = BatchCalls(calls)

    def create(
        self,
        input_file_id: str,
        endpoint: Endpoint,
        completion_window: str = DAY,
        **options: Unpack[BatchOptions],
    ) -> Batch:
        """Start a batch over the lines of an uploaded file. The retries of one call create only one batch.

        Args:
            input_file_id: the ``id`` of the file that :meth:`Files.upload` returned.
            endpoint: the route of every line.
            completion_window: the time limit, as ``24h`` or ``90m``. Lines that are unfinished then are not run.
            options: ``metadata`` (at most 16 short texts), ``output_expires_after``, ``idempotency_key`` and
                ``deadline``. A second call with the same key returns the batch of the first.

        Raises:
            NotFound: there is no such file.
            InvalidRequest: a field is invalid, or the key was used for another request.
        """
        fields = {"input_file_id": input_file_id, "endpoint": endpoint, "completion_window": completion_window}
        return self._run(self._calls.create({**fields, **options}))

    def get(self, batch_id: str, *, deadline: float | None = None) -> Batch:
        """Return the current state of a batch.

        Raises:
            NotFound: there is no batch with this id.
        """
        return self._run(self._calls.get(batch_id, deadline))

    def list(self, *, limit: int | None = None, deadline: float | None = None) -> Sequence[Batch]:
        """List all batches, or the newest ``limit`` of them, the newest first."""
        return self._run(self._calls.list_all(limit, deadline))

    def cancel(self, batch_id: str, *, deadline: float | None = None) -> Batch:
        """Cancel a batch. The results of finished lines are kept; the other lines are in its error file.

        Raises:
            NotFound: there is no batch with this id.
            Conflict: the batch has ended.
        """
        return self._run(self._calls.cancel(batch_id, deadline))

    def wait(
        self,
        batch_id: str,
        *,
        on_progress: OnProgress | None = None,
        longest_pause: float = RARELY,
        outage: float = OUTAGE,
        deadline: float | None = None,
    ) -> Batch:
        """Wait until a batch is completed, failed, expired or cancelled.

        Args:
            batch_id: the batch's id.
            on_progress: called with the batch after each poll, also after the last.
            longest_pause: the longest pause between two polls, in seconds. The first pauses are shorter.
            outage: the longest time for which the server may be unreachable after its first answer, in seconds.
            deadline: the longest time to wait, in seconds.

        Raises:
            NotFound: there is no batch with this id.
            DeadlineExceeded: the batch has not ended. It continues on the server.
            ConnectionFailed: the server was unreachable for longer than ``outage``.
        """
        return self._run(self._calls.wait(batch_id, on_progress, longest_pause, deadline, outage))
