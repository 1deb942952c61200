"""The engine over one SQLite file. Once the file is bound, connections to any other file are refused.

By itself SQLite goes on with a file that was moved or removed, creates an empty one for the next connection, and loses
the write-ahead log of the former file to a file that takes its place.
"""

import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

LOG = logging.getLogger(__name__)
BUSY_MILLISECONDS = 20_000
RETRY_SECONDS = 0.01


class SqliteFile:
    """A SQLite file and the engine over it.

    Args:
        url: SQLAlchemy's URL, with the path of a file. The first connection creates the file.
    """

    def __init__(self, url: URL) -> None:
        self.engine = create_engine(url)
        self._path = Path(url.database or "").absolute()
        self._bound: tuple[int, int] | None = None
        event.listen(self.engine, "do_connect", self._connect_to_bound)
        event.listen(self.engine, "connect", _prepare)
        event.listen(self.engine, "checkout", self._check)
        event.listen(self.engine, "begin", _begin)

    def bind(self) -> None:
        """Use the file that is there now, and no other, from now on.

        Raises:
            OSError: the file is missing.
        """
        self._bound = self._identity()

    def _identity(self) -> tuple[int, int]:
        """Return the device and the inode of the file."""
        found = os.stat(self._path)
        return found.st_dev, found.st_ino

    def _obstacle(self) -> str | None:
        """Say why the bound file cannot be opened; None if it can."""
        try:
            other = self._identity() != self._bound
        except OSError:
            return f"the file {self._path} is missing; put it back, or restart the server to begin with an empty one"
        if other:
            return f"another file took the place of {self._path}; put the former back, or restart the server to use it"
        return None

    def _connect_to_bound(self, dialect: Any, record: Any, arguments: list[Any], options: dict[str, Any]) -> None:  # noqa: ARG002
        if self._bound is None:
            return
        if obstacle := self._obstacle():
            raise sqlite3.OperationalError(obstacle)
        arguments[0] = f"file:{quote(str(self._path))}?mode=rw"
        options["uri"] = True

    def _check(self, connection: Any, record: Any, proxy: Any) -> None:  # noqa: ARG002
        if self._bound is not None and self._obstacle():
            LOG.warning("the file %s was moved, removed or replaced; its connections are closed", self._path)
            raise InvalidatePoolError


def _prepare(connection: sqlite3.Connection, record: Any) -> None:  # noqa: ARG001
    connection.isolation_level = None  # the driver must not begin transactions by itself
    connection.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}").close()
    _write_ahead(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Let the file have a write-ahead log.

    Two that change a new file at the same time each hold what the other waits for; SQLite then refuses one at once,
    whatever its `busy_timeout`. It tries again here.
    """
    deadline = time.monotonic() + BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return


def _begin(connection: Connection) -> None:
    """Begin a transaction; a writer takes the lock at once, since a reader cannot become one after another's write."""
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
