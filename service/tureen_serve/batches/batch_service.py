"""The batch service of one server: opens the database and the file store beside it, retries, runs and closes them.

While the stores cannot be opened, the server serves everything else.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from tureen.errors import NotFound, TureenError, Unavailable
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.batches.database import Database, StoreError
from tureen_serve.batches.endpoints import BatchEndpoints
from tureen_serve.batches.file_store import FileStore
from tureen_serve.batches.io_threads import IoThreads
from tureen_serve.batches.leases import Leases
from tureen_serve.batches.metrics import BatchMetrics
from tureen_serve.batches.runner import Runner
from tureen_serve.batches.store import Store
from tureen_serve.batches.worker import Worker
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics

LOG = logging.getLogger(__name__)
AGAIN_SECONDS = 15.0
OPENING = "the store of files and batches is being opened; try again"
State = Literal["off", "opening", "working", "failing"]
BROKEN = "the store of files and batches cannot be opened; the server's log says why"


@dataclass(frozen=True)
class OpenStores:
    """The open database and file store, and the runner over them.

    Attributes:
        runner: None if this server leaves the work to other replicas.
    """

    store: Store
    files: FileStore
    runner: Runner | None

    def wake(self) -> None:
        """Tell the runner to look for work now."""
        if self.runner is not None:
            self.runner.wake()


class BatchService:
    """Files and batches, from before their stores are open until after they are closed.

    Args:
        engine: returns the engine; None while nothing should run on it.
    """

    def __init__(
        self, options: BatchSettings, endpoints: BatchEndpoints, engine: Callable[[], Engine | None], metrics: Metrics
    ) -> None:
        self.options = options
        self.io = IoThreads()
        # separate threads, so that slow uploads never delay the extension of a lease
        self._worker_io = IoThreads(options.chunks + 3)
        self._endpoints = endpoints
        self._engine = engine
        self._metrics = metrics
        self._meters = BatchMetrics(metrics.registry, lambda: self.state == "failing")
        self._database: Database | None = None
        self._opened: OpenStores | None = None
        self._failed = False
        self._uploads = 0

    @property
    def state(self) -> State:
        """The state of files and batches, as ``/health/ready`` reports it."""
        if not self.options.enabled:
            return "off"
        if self._opened is None or self._database is None:
            return "failing" if self._failed else "opening"
        runner = self._opened.runner
        return "failing" if self._database.failing or (runner is not None and runner.failing) else "working"

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """Hold one of the places for uploads.

        Raises:
            Unavailable: all places are taken.
        """
        if self._uploads >= self.options.uploads:
            message = f"{self._uploads} files are being uploaded, which is the limit, `batches.uploads`; try again"
            raise Unavailable(message, retry_after=5)
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    def opened(self) -> OpenStores:
        """Return the open stores.

        Raises:
            NotFound: this server takes no batches.
            Unavailable: the stores are not open; the message says why.
        """
        if not self.options.enabled:
            raise NotFound(
                "this server takes no files and batches: `batches.enabled` is false", code="batches_disabled"
            )
        if self._opened is None:
            raise Unavailable(BROKEN if self._failed else OPENING, code="store_unavailable", retry_after=2)
        return self._opened

    async def open(self) -> None:
        """Open the stores, and try again every ``AGAIN_SECONDS`` until it works. The first failure is logged."""
        while self.options.enabled and self._opened is None:
            try:
                await self.connect()
            except Exception as error:  # also a driver's own error, for example for missing credentials
                if not self._failed:
                    known = isinstance(error, TureenError | StoreError)
                    message = "no files and batches for now: %s (see the settings under `batches`)"
                    LOG.error(message, error, exc_info=None if known else error)
                self._failed = True
                await asyncio.sleep(AGAIN_SECONDS)

    async def connect(self) -> OpenStores:
        """Open the stores once.

        Raises:
            StoreError: the settings of a store cannot be used.
            Unavailable: a store cannot be reached or written.
        """
        self._opened = self._assemble(*await self.io(self._connect))
        return self._opened

    def _connect(self) -> tuple[Database, FileStore]:
        if self._database is None:
            self._database = Database(self.options.store_url)
        return self._database, FileStore(self.options.files_url)

    def _assemble(self, database: Database, files: FileStore) -> OpenStores:
        store = Store(database, self.options.keep_days)
        leases = Leases(database, self.options.lease_seconds)
        io = self._worker_io
        worker = Worker(leases, files, self._endpoints, self.options, io, self._metrics, self._meters)
        runner = Runner(worker, leases, self.options, io, self._engine) if self.options.worker else None
        return OpenStores(store, files, runner)

    async def close(self) -> None:
        """Give unfinished work back, and close the stores."""
        if self._opened is not None and self._opened.runner is not None:
            await self._opened.runner.close()
        for io in (self._worker_io, self.io):
            await asyncio.to_thread(io.close)
        if self._database is not None:
            self._database.close()
