"""``client.files`` and ``client.batches``, blocking and asynchronous."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Unpack

from tureen.atomic_files import replace_atomically
from tureen.batches.batch_flows import OUTAGE, BatchCalls, FileCalls, OnProgress
from tureen.batches.content import AsyncContent, Content
from tureen.batches.uploads import Source, open_form
from tureen.calls.call_options import BatchOptions
from tureen.calls.request_flows import Calls
from tureen.calls.senders import AsyncRunFlow, RunFlow
from tureen.wire import Batch, Endpoint, File, FileDeleted, Purpose

DAY = "24h"
RARELY = 10.0


class Files:
    """Files on the server. Every method takes ``deadline``, the seconds that the whole call may last."""

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
        """Upload the input of a batch: JSON Lines of ``custom_id``, ``method``, ``url`` and ``body``.

        Args:
            source: a file's path, its bytes, or any iterable of its lines: dicts, ``wire.InputLine``, or bytes and
                texts that end their lines themselves. It is never whole in memory.
            name: what the file is called; as on the disk by default.
            expires_after: seconds after which the server lets go of it.
            deadline: seconds that the whole call may last.

        Raises:
            PayloadTooLarge: it is larger than the server takes.
            OSError: it cannot be read.
        """
        with open_form(source, name, expires_after) as uploaded:
            return self._run(self._calls.upload(uploaded, deadline))

    def get(self, file_id: str, *, deadline: float | None = None) -> File:
        """What the server knows of a file.

        Raises:
            NotFound: there is none of that id.
        """
        return self._run(self._calls.get(file_id, deadline))

    def list(
        self, *, purpose: Purpose | None = None, limit: int | None = None, deadline: float | None = None
    ) -> Sequence[File]:
        """All files, or the newest ``limit`` of them, the newest first."""
        return self._run(self._calls.list_all(purpose, limit, deadline))

    def content(self, file_id: str, *, deadline: float | None = None) -> Content:
        """A file's lines, to be iterated as they come; errors are those of :meth:`get`."""
        return Content(*self._run(self._calls.open(file_id, deadline)))

    def save(self, file_id: str, path: str | Path, *, deadline: float | None = None) -> Path:
        """Download a file. ``path`` is there whole, or as it was before; errors are those of :meth:`get`."""
        with replace_atomically(Path(path)) as part:
            self._run(self._calls.save(file_id, part, deadline))
        return Path(path)

    def delete(self, file_id: str, *, deadline: float | None = None) -> FileDeleted:
        """Delete a file.

        Raises:
            NotFound: there is none of that id.
            Conflict: a batch still reads it.
        """
        return self._run(self._calls.delete(file_id, deadline))


class Batches:
    """Jobs over the lines of a file. Every method takes ``deadline``, the seconds that the whole call may last."""

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
        """Run every line of an uploaded file. All tries of one call make one batch.

        Args:
            input_file_id: what :meth:`Files.upload` answered with.
            endpoint: where every line goes.
            completion_window: hours or minutes, ``24h`` or ``90m``, after which unfinished lines are given up.
            options: ``metadata`` (16 short texts), ``output_expires_after``, ``idempotency_key`` and ``deadline``. A
                call with the key of an earlier one answers with that one's batch.

        Raises:
            NotFound: there is no such file.
            Unprocessable: a field cannot be used, or the key was used for something else.
        """
        fields = {"input_file_id": input_file_id, "endpoint": endpoint, "completion_window": completion_window}
        return self._run(self._calls.create({**fields, **options}))

    def get(self, batch_id: str, *, deadline: float | None = None) -> Batch:
        """A batch as it stands.

        Raises:
            NotFound: there is none of that id.
        """
        return self._run(self._calls.get(batch_id, deadline))

    def list(self, *, limit: int | None = None, deadline: float | None = None) -> Sequence[Batch]:
        """All batches, or the newest ``limit`` of them, the newest first."""
        return self._run(self._calls.list_all(limit, deadline))

    def cancel(self, batch_id: str, *, deadline: float | None = None) -> Batch:
        """Cancel a batch: finished lines are kept, the others are in its error file.

        Raises:
            NotFound: there is none of that id.
            Conflict: it has ended.
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
        """Wait until a batch has ended: completed, failed, expired or cancelled. A server that is away is waited for.

        Args:
            batch_id: of the batch.
            on_progress: told of the batch at every look, the last one included.
            longest_pause: seconds between two looks; the first ones follow each other faster.
            outage: seconds for which a server that answered once may be away.
            deadline: seconds to wait.

        Raises:
            NotFound: there is none of that id.
            DeadlineExceeded: it has not ended; it goes on nevertheless.
            ConnectionFailed: the server was away for longer.
        """
        return self._run(self._calls.wait(batch_id, on_progress, longest_pause, deadline, outage))


class AsyncFiles:
    """As :class:`Files`, to be awaited."""

    def __init__(self, run: AsyncRunFlow, calls: Calls) -> None:
        self._run = run
        self._calls = FileCalls(calls)

    async def upload(
        self,
        source: Source,
        *,
        name: str | None = None,
        expires_after: int | None = None,
        deadline: float | None = None,
    ) -> File:
        """As :meth:`Files.upload`; an iterable is read in a thread."""
        with ExitStack() as stack:
            uploaded = await asyncio.to_thread(stack.enter_context, open_form(source, name, expires_after))
            return await self._run(self._calls.upload(uploaded, deadline))

    async def get(self, file_id: str, *, deadline: float | None = None) -> File:
        """As :meth:`Files.get`."""
        return await self._run(self._calls.get(file_id, deadline))

    async def list(
        self, *, purpose: Purpose | None = None, limit: int | None = None, deadline: float | None = None
    ) -> Sequence[File]:
        """As :meth:`Files.list`."""
        return await self._run(self._calls.list_all(purpose, limit, deadline))

    async def content(self, file_id: str, *, deadline: float | None = None) -> AsyncContent:
        """As :meth:`Files.content`; ``async for`` over it."""
        return AsyncContent(*(await self._run(self._calls.open(file_id, deadline))))

    async def save(self, file_id: str, path: str | Path, *, deadline: float | None = None) -> Path:
        """As :meth:`Files.save`."""
        with replace_atomically(Path(path)) as part:
            await self._run(self._calls.save(file_id, part, deadline))
        return Path(path)

    async def delete(self, file_id: str, *, deadline: float | None = None) -> FileDeleted:
        """As :meth:`Files.delete`."""
        return await self._run(self._calls.delete(file_id, deadline))


class AsyncBatches:
    """As :class:`Batches`, to be awaited."""

    def __init__(self, run: AsyncRunFlow, calls: Calls) -> None:
        self._run = run
        self._calls = BatchCalls(calls)

    async def create(
        self,
        input_file_id: str,
        endpoint: Endpoint,
        completion_window: str = DAY,
        **options: Unpack[BatchOptions],
    ) -> Batch:
        """As :meth:`Batches.create`."""
        fields = {"input_file_id": input_file_id, "endpoint": endpoint, "completion_window": completion_window}
        return await self._run(self._calls.create({**fields, **options}))

    async def get(self, batch_id: str, *, deadline: float | None = None) -> Batch:
        """As :meth:`Batches.get`."""
        return await self._run(self._calls.get(batch_id, deadline))

    async def list(self, *, limit: int | None = None, deadline: float | None = None) -> Sequence[Batch]:
        """As :meth:`Batches.list`."""
        return await self._run(self._calls.list_all(limit, deadline))

    async def cancel(self, batch_id: str, *, deadline: float | None = None) -> Batch:
        """As :meth:`Batches.cancel`."""
        return await self._run(self._calls.cancel(batch_id, deadline))

    async def wait(
        self,
        batch_id: str,
        *,
        on_progress: OnProgress | None = None,
        longest_pause: float = RARELY,
        outage: float = OUTAGE,
        deadline: float | None = None,
    ) -> Batch:
        """As :meth:`Batches.wait`."""
        return await self._run(self._calls.wait(batch_id, on_progress, longest_pause, deadline, outage))
