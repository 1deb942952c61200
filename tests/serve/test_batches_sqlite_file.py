"""A SQLite file that is moved, removed or replaced under an open store: noticed, said, and never created anew."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from tureen.errors import Unavailable
from tureen_serve.batches import schema
from tureen_serve.batches.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder 1%?#" / "batches.sqlite"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    found = opened(path, "first")
    yield found
    found.close()


def opened(path: Path, key: str) -> Database:
    """A store that holds one idempotency key."""
    found = Database(f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}")
    with found.writing() as connection:
        connection.execute(insert(schema.claims).values(key=key, fingerprint="f", claimed_at=0))
    return found


def keys(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(select(schema.claims.c.key)).scalars())


def test_a_file_that_is_moved_away_is_missed_and_used_again_when_it_is_back(
    database: Database, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = path.rename(path.with_name("away"))
    for _ in range(2):
        with pytest.raises(Unavailable, match="the server's log says why"):
            keys(database)
        assert database.failing
        assert not path.exists()
    assert f"the file {path} was moved, removed or replaced" in caplog.text
    assert f"the file {path} is missing; put it back, or restart the server" in caplog.text
    away.rename(path)
    assert keys(database) == ["first"]
    assert not database.failing


def test_a_file_that_is_missing_is_not_created_by_a_new_connection(database: Database, path: Path) -> None:
    database.close()
    path.unlink()
    with pytest.raises(Unavailable), database.writing():
        pass
    assert not path.exists()


@pytest.mark.parametrize("empty", [False, True])
def test_another_file_in_its_place_is_not_used_and_does_no_harm(
    database: Database, path: Path, caplog: pytest.LogCaptureFixture, empty: bool
) -> None:
    other = path.with_name("other")
    if empty:
        other.touch()
    else:
        opened(other, "second").close()
    content = other.read_bytes()
    away = path.rename(path.with_name("away"))
    other.rename(path)
    for _ in range(2):
        with pytest.raises(Unavailable):
            keys(database)
    assert f"another file took the place of {path}; put the former back" in caplog.text
    assert path.read_bytes() == content
    away.replace(path)
    assert keys(database) == ["first"]


def test_a_store_that_is_opened_anew_creates_its_file(database: Database, path: Path) -> None:
    database.close()
    path.unlink()
    again = opened(path, "third")
    assert keys(again) == ["third"]
    again.close()
