"""Models behind URLs are copied once, as a whole, and again when they have changed."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tureen_core.plain.options import PlainError
from tureen_core.plain.url_copies import copy_from_url

URL = "memory://bucket/model"


@pytest.fixture
def store() -> Iterator[Any]:
    """A file system in memory with two files of a model."""
    system = fsspec.filesystem("memory")
    for name in ("config.json", "part/weights.bin"):
        system.pipe_file(f"/bucket/model/{name}", name.encode())
    yield system
    system.rm("/bucket", recursive=True)


def test_a_copy_has_all_files_and_is_used_again(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_from_url(URL, tmp_path)
    assert folder.name == "model"
    assert {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()} == {
        "config.json": "config.json",
        "part/weights.bin": "part/weights.bin",
    }
    monkeypatch.setattr(MemoryFileSystem, "get_file", None)
    assert copy_from_url(URL, tmp_path) == folder


def test_a_changed_file_of_equal_size_is_copied_anew(store: Any, tmp_path: Path) -> None:
    first = copy_from_url(URL, tmp_path)
    store.pipe_file("/bucket/model/config.json", b"CONFIG.JSON")
    second = copy_from_url(URL, tmp_path)
    assert (first / "config.json").read_text() == "config.json"
    assert (second / "config.json").read_text() == "CONFIG.JSON"


def test_the_last_two_copies_of_a_url_are_kept(store: Any, tmp_path: Path) -> None:
    other = copy_from_url("memory://bucket/model/part", tmp_path)
    copies = [copy_from_url(URL, tmp_path)]
    left = copies[0].parent.parent / ".copy-killed"
    left.mkdir()
    for number in range(3):
        store.pipe_file("/bucket/model/config.json", f"{number}".encode())
        copies.append(copy_from_url(URL, tmp_path))
    assert [each.is_dir() for each in copies] == [False, False, True, True]
    assert other.is_dir()
    assert left.is_dir()  # another process may be at it
    store.pipe_file("/bucket/model/config.json", b"1")
    os.utime(left, (0, 0))
    assert copy_from_url(URL, tmp_path) != copies[2]  # its time is another one
    assert not left.exists()


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(PlainError, match=r"s3://bucket/model cannot be read: .* pip install 'tureen\[s3\]'"):
        copy_from_url("s3://bucket/model", tmp_path)


def test_an_interrupted_copy_leaves_nothing(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get = MemoryFileSystem.get_file

    def fail(self: Any, source: str, target: str, **further: Any) -> None:
        if source.endswith("weights.bin"):
            raise OSError("the line is cut")
        get(self, source, target, **further)

    monkeypatch.setattr(MemoryFileSystem, "get_file", fail)
    with pytest.raises(PlainError, match="memory://bucket/model cannot be read: the line is cut"):
        copy_from_url(URL, tmp_path)
    assert list((tmp_path / "sources").glob("*/*")) == []
    monkeypatch.undo()
    assert (copy_from_url(URL, tmp_path) / "part" / "weights.bin").is_file()


def test_a_short_file_is_refused(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda self, source, target, **_: Path(target).write_bytes(b"x"))
    with pytest.raises(PlainError, match=r"config\.json has 11 bytes and 1 came; try again"):
        copy_from_url(URL, tmp_path)


def test_a_change_meanwhile_is_refused(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get = MemoryFileSystem.get_file

    def change(self: Any, source: str, target: str, **further: Any) -> None:
        get(self, source, target, **further)
        store.pipe_file("/bucket/model/config.json", b"CONFIG.JSON")

    monkeypatch.setattr(MemoryFileSystem, "get_file", change)
    with pytest.raises(PlainError, match="changed while it was copied"):
        copy_from_url(URL, tmp_path)


def test_refusals(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, reason in (
        ("memory://bucket/empty", "holds no files"),
        ("memory://bucket/model/config.json", "is no folder"),
        ("nosuch://user:secret@host/x", "Protocol not known: nosuch"),
    ):
        with pytest.raises(PlainError, match=reason) as error:
            copy_from_url(url, tmp_path)
        assert "secret" not in str(error.value)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5}))
    with pytest.raises(PlainError, match="27 bytes, more than are free"):
        copy_from_url(URL, tmp_path)
