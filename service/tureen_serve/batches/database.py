"""The database of files and batches: its transactions, and the time that all replicas agree on.

SQLite admits one writer at a time and lets others wait; PostgreSQL admits many. Calls block, so call them in threads.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, insert, make_url, select, text, update
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from tureen.errors import Unavailable
from tureen_serve.batches import schema
from tureen_serve.batches.sqlite_file import SqliteFile

LOG = logging.getLogger(__name__)
CONNECT_SECONDS = 10
SCHEMA_LOCK = 0x74757265656E  # two replicas may start at once
CLOCKS = {
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
}


class StoreError(ValueError):
    """The settings of the store cannot be used; the message says why."""


class Database:
    """The tables of files and batches in one database.

    Args:
        url: SQLAlchemy's URL; the folder of a SQLite file is created.
        clock: returns the time in seconds of the epoch; the database's own clock by default.

    Attributes:
        failing: whether the last transaction failed because the database could not be used.

    Raises:
        StoreError: the URL names no database that can hold batches, or the tables have another version.
        Unavailable: the database cannot be reached or written.
    """

    def __init__(self, url: str, clock: Callable[[], float] | None = None) -> None:
        parsed = _parse_url(url)
        self._file = _sqlite_file(parsed) if parsed.get_backend_name() == "sqlite" else None
        self._engine = self._file.engine if self._file else _postgresql_engine(parsed)
        self._clock = clock
        self.failing = False
        self.name = self._engine.url.render_as_string(hide_password=True)
        try:
            self._create_tables()
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that only reads.

        Raises:
            Unavailable: the database cannot be reached.
        """
        with self._reporting_failure(), self._engine.connect().execution_options(reading=True) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that is committed at the end of the block, and rolled back if the block raises.

        Raises:
            Unavailable: the database cannot be reached or written.
        """
        with self._reporting_failure(), self._engine.begin() as connection:
            yield connection

    def now(self, connection: Connection) -> float:
        """Return the time in seconds of the epoch, the same for all replicas that share the database."""
        if self._clock is not None:
            return self._clock()
        return float(connection.execute(text(CLOCKS[self._engine.dialect.name])).scalar_one())

    @contextmanager
    def _reporting_failure(self) -> Iterator[None]:
        try:
            yield
            self.failing = False
        except DBAPIError as error:
            self.failing = True
            LOG.warning("the store of batches, %s, cannot be used: %s", self.name, str(error.orig).strip())
            message = "the store of batches cannot be used; the server's log says why"
            raise Unavailable(message, code="store_unavailable", retry_after=5) from error

    def _create_tables(self) -> None:
        with self.writing() as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execute(select(text(f"pg_advisory_xact_lock({SCHEMA_LOCK})")))
            schema.metadata.create_all(connection)
            found = connection.execute(select(schema.schema.c.version)).scalar()
            if found is None:
                connection.execute(insert(schema.schema).values(version=schema.VERSION))
            elif found in range(1, schema.VERSION):
                found = _upgrade(connection, found)
            if self._file:
                self._file.bind()
        if found not in (None, schema.VERSION):
            message = f"{self.name} holds tables of version {found}, and this server reads version {schema.VERSION}"
            raise StoreError(f"{message}; name another database in `batches.store`")


def _upgrade(connection: Connection, version: int) -> int:
    """Change tables of an older version into those of this one, and return its number. All rows stay."""
    for number in range(version + 1, schema.VERSION + 1):
        for statement in schema.UPGRADES[number]:
            connection.execute(text(statement))
    connection.execute(update(schema.schema).values(version=schema.VERSION))
    LOG.info("the tables of files and batches were of version %d and are of version %d now", version, schema.VERSION)
    return schema.VERSION


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in CLOCKS:
            raise StoreError(f"batches.store: {parsed.get_backend_name()} is not known; use sqlite or postgresql")
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreError(f"batches.store cannot be used: {error}") from error
    return parsed


def _postgresql_engine(url: URL) -> Engine:
    driver = url.set(drivername="postgresql+psycopg")
    try:
        return create_engine(driver, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_SECONDS})
    except (ArgumentError, ModuleNotFoundError) as error:
        raise StoreError(f"batches.store cannot be used: {error}") from error


def _sqlite_file(url: URL) -> SqliteFile:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise StoreError("batches.store: a SQLite database must be the path of a file, since several threads read it")
    folder = Path(url.database).parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"{folder} cannot be created ({error.strerror}); set `batches.folder` to another"
        raise StoreError(message) from error
    try:
        return SqliteFile(url)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(f"batches.store cannot be used: {error}") from error
