"""Bytes under keys: in a folder, and in another of fsspec's stores."""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tureen.errors import PayloadTooLarge, Unavailable
from tureen_serve.batches.database import StoreError
from tureen_serve.batches.file_store import PART_BYTES, FileStore


@pytest.fixture(params=["folder", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    return FileStore(str(tmp_path / "files") if request.param == "folder" else f"memory:/{tmp_path}")


def has(files: FileStore, key: str) -> bool:
    try:
        return next(files.read(key)) is not None
    except Unavailable:
        return False


def test_what_is_written_is_read(files: FileStore) -> None:
    stored = files.write("uploads/a", [b"one\n", b"", b"two\n"])
    assert (stored.key, stored.bytes) == ("uploads/a", 8)
    assert stored.digest == hashlib.sha256(b"one\ntwo\n").hexdigest()
    assert b"".join(files.read("uploads/a")) == b"one\ntwo\n"
    assert has(files, "uploads/a")
    assert not has(files, "uploads/b")


def test_large_files_are_read_in_parts(files: FileStore) -> None:
    files.write("a", [b"x" * PART_BYTES, b"y" * PART_BYTES, b"z"])
    assert [len(part) for part in files.read("a")] == [PART_BYTES, PART_BYTES, 1]


def test_a_slice_is_read_by_itself(files: FileStore) -> None:
    files.write("a", [b"0123456789"])
    assert files.read_range("a", 2, 3) == b"234"
    assert files.read_range("a", 8, 2) == b"89"


def test_a_slice_is_asked_for_as_buckets_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Bucket(MemoryFileSystem):  # type: ignore[misc]
        """Its ``cat_file`` has s3fs's parameters, in s3fs's order."""

        def cat_file(self, path: str, version_id: str | None = None, start: int | None = None, **more: object) -> bytes:
            assert version_id is None
            found: bytes = super().cat_file(path, start=start, **more)
            return found

    fsspec.register_implementation("bucket", Bucket, clobber=True)
    bucket = FileStore(f"bucket:/{tmp_path}")
    bucket.write("a", [b"0123456789"])
    assert bucket.read_range("a", 2, 3) == b"234"


def test_more_than_the_limit_is_refused_and_leaves_nothing(files: FileStore) -> None:
    seen = 0

    def parts() -> Iterator[bytes]:
        nonlocal seen
        for _ in range(100):
            seen += 1
            yield b"x" * 10

    with pytest.raises(PayloadTooLarge, match="over 35 bytes"):
        files.write("uploads/a", parts(), 35)
    assert seen == 4
    assert not has(files, "uploads/a")
    assert files.write("uploads/b", [b"x" * 35], 35).bytes == 35


def test_a_source_that_breaks_off_leaves_nothing(files: FileStore) -> None:
    def parts() -> Iterator[bytes]:
        yield b"x"
        raise RuntimeError("the caller hung up")

    with pytest.raises(RuntimeError, match="hung up"):
        files.write("uploads/a", parts())
    assert not has(files, "uploads/a")


def test_what_is_removed_is_gone_and_may_be_removed_again(files: FileStore) -> None:
    files.write("a", [b"x"])
    files.remove("a")
    files.remove("a")
    assert not has(files, "a")
    with pytest.raises(Unavailable):
        next(files.read("a"))
    with pytest.raises(Unavailable):
        files.read_range("a", 0, 1)


def test_a_folder_is_swept_but_for_what_stays(files: FileStore) -> None:
    for key in ("batches/x/1", "batches/x/2", "batches/x/output", "batches/xy/1"):
        files.write(key, [b"x"])
    files.sweep("batches/x", ["batches/x/output"])
    assert [has(files, f"batches/x/{name}") for name in ("1", "2", "output")] == [False, False, True]
    assert has(files, "batches/xy/1")
    files.sweep("batches/x")
    files.sweep("batches/x")
    files.sweep("batches/never")
    assert not has(files, "batches/x/output")


def test_it_is_made_where_it_is_not(tmp_path: Path) -> None:
    FileStore(str(tmp_path / "a" / "b")).write("c", [b"x"])
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"x"


def test_a_folder_that_cannot_be_made_is_unavailable_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unavailable):
        FileStore("/dev/null/files")
    assert "/dev/null/files" in caplog.text


def test_and_one_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anywhere
    with pytest.raises(Unavailable):
        FileStore(str(tmp_path))


def test_a_local_file_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def spy(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", spy)
    FileStore(str(tmp_path)).write("uploads/a", [b"x"])
    assert synced == [str(tmp_path / "uploads" / "a"), str(tmp_path / "uploads")]


def test_a_store_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(StoreError, match=r"batches\.files: s3:// needs a package .* pip install 'tureen\[s3\]'"):
        FileStore("s3://bucket/tureen")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StoreError, match=r"batches\.files: gcs:// needs a package .*gcsfs"):
        FileStore("gcs://bucket/tureen")


def test_a_store_that_nobody_knows_is_refused() -> None:
    with pytest.raises(StoreError, match=r"batches\.files: Protocol not known: cellar"):
        FileStore("cellar://bucket/tureen")
