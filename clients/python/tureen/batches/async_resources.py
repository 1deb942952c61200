"""``client.files`` and ``client.batches`` of the asynchronous client: the methods that users call."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Unpack

from tureen.atomic_files import replace_atomically
from tureen.batches.batch_flows import OUTAGE, BatchCalls, FileCalls, OnProgress
from tureen.batches.content import AsyncContent
from tureen.batches.resources import DAY, RARELY
from tureen.batches.uploads import Source, open_form
from tureen.calls.call_options import BatchOptions
from tureen.calls.request_flows import Calls
from tureen.calls.senders import AsyncRunFlow
from tureen.wire import Batch, Endpoint, File, FileDeleted, Purpose


class AsyncFiles:
    """The asynchronous form of :class:`tureen.batches.resources.Files`."""

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
        """As :meth:`tureen.batches.resources.Files.upload`; an iterable is read in a thread."""
        with ExitStack() as stack:
            uploaded = await asyncio.to_thread(stack.enter_context, open_form(source, name, expires_after))
            return await self._run(self._calls.upload(uploaded, deadline))

    async def get(self, file_id: str, *, deadline: float | None = None) -> File:
        """As :meth:`tureen.batches.resources.Files.get`."""
        return await self._run(self._calls.get(file_id, deadline))

    async def list(
        self, *, purpose: Purpose | None = None, limit: int | None = None, deadline: float | None = None
    ) -> Sequence[File]:
        """As :meth:`tureen.batches.resources.Files.list`."""
        return await self._run(self._calls.list_all(purpose, limit, deadline))

    async def content(self, file_id: str, *, deadline: float | None = None) -> AsyncContent:
        """As :meth:`tureen.batches.resources.Files.content`; ``async for`` over it."""
        return AsyncContent(*(await self._run(self._calls.open(file_id, deadline))))

    async def save(self, file_id: str, path: str | Path, *, deadline: float | None = None) -> Path:
        """As :meth:`tureen.batches.resources.Files.save`."""
        with replace_atomically(Path(path)) as part:
            await self._run(self._calls.save(file_id, part, deadline))
        return Path(path)

    async def delete(self, file_id: str, *, deadline: float | None = None) -> FileDeleted:
        """As :meth:`tureen.batches.resources.Files.delete`."""
        return await self._run(self._calls.delete(file_id, deadline))


class AsyncBatches:
    """The asynchronous form of :class:`tureen.batches.resources.Batches`."""

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
        """As :meth:`tureen.batches.resources.Batches.create`."""
        fields = {"input_file_id": input_file_id, "endpoint": endpoint, "completion_window": completion_window}
        return await self._run(self._calls.create({**fields, **options}))

    async def get(self, batch_id: str, *, deadline: float | None = None) -> Batch:
        """As :meth:`tureen.batches.resources.Batches.get`."""
        return await self._run(self._calls.get(batch_id, deadline))

    async def list(self, *, limit: int | None = None, deadline: float | None = None) -> Sequence[Batch]:
        """As :meth:`tureen.batches.resources.Batches.list`."""
        return await self._run(self._calls.list_all(limit, deadline))

    async def cancel(self, batch_id: str, *, deadline: float | None = None) -> Batch:
        """As :meth:`tureen.batches.resources.Batches.cancel`."""
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
        """As :meth:`tureen.batches.resources.Batches.wait`."""
        return await self._run(self._calls.wait(batch_id, on_progress, longest_pause, deadline, outage))
