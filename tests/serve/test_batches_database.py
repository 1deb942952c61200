"""The database: its transactions, its clock, and the sentence for one that cannot be used."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import Postgres
from serve.stores import Bench
from sqlalchemy import insert, select, text, update

from tureen.errors import Unavailable
from tureen_serve.batches import schema
from tureen_serve.batches.database import Database, StoreError
from tureen_serve.batches.records import StoredFile, Viewer
from tureen_serve.batches.store import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/down/batches.sqlite"
    server: Postgres = request.getfixturevalue("postgresql")
    return server.database()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    found = Database(url)
    yield found
    found.close()


def claim(database: Database, key: str) -> None:
    with database.writing() as connection:
        connection.execute(insert(schema.claims).values(key=key, fingerprint="f", claimed_at=0))


def claimed(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(select(schema.claims.c.key).order_by(schema.claims.c.key)).scalars())


def test_what_is_written_holds_and_opening_again_changes_nothing(database: Database, url: str) -> None:
    claim(database, "a")
    again = Database(url)
    assert claimed(again) == ["a"]
    again.close()


def test_a_block_that_fails_writes_nothing(database: Database) -> None:
    def fail() -> None:
        with database.writing() as connection:
            connection.execute(insert(schema.claims).values(key="a", fingerprint="f", claimed_at=0))
            raise RuntimeError("on second thoughts")

    with pytest.raises(RuntimeError, match="second thoughts"):
        fail()
    assert claimed(database) == []


def test_writers_in_threads_wait_for_each_other(database: Database) -> None:
    def count(number: int) -> None:
        for each in range(5):
            claim(database, f"{number}-{each}")

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed(database)) == 20


def test_a_writer_may_read_first(database: Database) -> None:
    """In SQLite a transaction that began as a reader cannot write once another has."""
    claim(database, "a")
    ready, go = threading.Barrier(2), 5

    def bump() -> None:
        for _ in range(go):
            ready.wait(10)
            with database.writing() as connection:
                row = connection.execute(select(schema.claims).with_for_update()).one()
                connection.execute(update(schema.claims).values(claimed_at=row.claimed_at + 1))

    threads = [threading.Thread(target=bump) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as connection:
        assert connection.execute(select(schema.claims.c.claimed_at)).scalar_one() == 2 * go


def test_the_time_is_the_databases_own(database: Database) -> None:
    with database.reading() as connection:
        first = database.now(connection)
        assert abs(first - time.time()) < 60
        connection.execute(text("SELECT 1"))
        assert database.now(connection) >= first


def test_the_time_can_be_told(url: str) -> None:
    database = Database(url, lambda: 12.5)
    with database.reading() as connection:
        assert database.now(connection) == 12.5
    database.close()


def test_tables_of_another_version_are_refused(database: Database, url: str) -> None:
    with database.writing() as connection:
        connection.execute(update(schema.schema).values(version=99))
    with pytest.raises(StoreError, match="version 99, and this server reads version 2"):
        Database(url)


def make_old(database: Database) -> None:
    """Turn the tables into those of version 1."""
    with database.writing() as connection:
        for table in ("tureen_files", "tureen_batches"):
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN tenant"))
        connection.execute(update(schema.schema).values(version=1))


def test_older_tables_are_changed_and_their_rows_stay(database: Database, url: str) -> None:
    bench = Bench(url)
    batch, stored = bench.begun(), StoredFile("uploads/b", 3, "0" * 64)
    made = bench.store.list_files(9).data
    bench.close()
    make_old(database)
    opened: list[Database] = []
    threads = [threading.Thread(target=lambda: opened.append(Database(url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = Store(opened[0])
    nobody, red = Viewer(sees_all=False), Viewer("red", sees_all=False)
    assert store.list_files(9, viewer=nobody).data == made
    assert [each.id for each in store.list_batches(9, viewer=nobody).data] == [batch]
    assert store.list_files(9, viewer=red).data == []
    name = store.add_file(stored, "b.jsonl", viewer=red).id
    assert [each.id for each in store.list_files(9, viewer=red).data] == [name]
    with opened[0].reading() as connection:
        assert connection.execute(select(schema.schema.c.version)).scalars().all() == [schema.VERSION]
    for each in opened:
        each.close()


def test_many_may_open_an_empty_one_at_once(url: str) -> None:
    opened: list[Database] = []
    threads = [threading.Thread(target=lambda: opened.append(Database(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    claim(opened[0], "a")
    assert claimed(opened[3]) == ["a"]
    for each in opened:
        each.close()


def test_sqlite_keeps_what_it_has_said_through_a_power_cut(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/b.sqlite")
    with database.reading() as connection:
        settings = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")
        }
    database.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://x/y", "mysql is not known; use sqlite or postgresql"),
        ("nonsense", "cannot be used"),
        ("sqlite://", "must be the path of a file"),
        ("sqlite:///file:b.sqlite?uri=true", "must be the path of a file"),
        ("sqlite:////dev/null/x/b.sqlite", "set `batches.folder` to another"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_sentence(url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        Database(url)


def test_one_that_is_not_there_is_unavailable_and_its_password_is_nowhere(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable) as caught:
        Database(f"postgresql://me:hunter2hunter2@/none?host={tmp_path}")
    assert caught.value.code == "store_unavailable"
    assert "hunter2" not in caught.value.message + caplog.text
    assert str(tmp_path) not in caught.value.message
    assert "No such file" in caplog.text
