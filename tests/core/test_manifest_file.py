"""The file of a manifest is refused unread if it is too large to be one."""

from pathlib import Path

import pytest

from tureen_core.artifact import MANIFEST, ArtifactError, read_manifest
from tureen_core.manifest_file import LARGEST, read_manifest_bytes


def test_a_manifest_is_read(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b"{}")
    assert read_manifest_bytes(tmp_path / MANIFEST) == b"{}"


def test_a_file_that_is_too_large_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / MANIFEST
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)

    def never(_: Path) -> bytes:
        raise AssertionError("it was read")

    monkeypatch.setattr(Path, "read_bytes", never)
    with pytest.raises(ArtifactError, match=f"has {LARGEST + 1} bytes, and a manifest has at most {LARGEST}"):
        read_manifest(tmp_path)


def test_a_folder_without_one_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has no tureen.json, so it is no artifact: export a run"):
        read_manifest(tmp_path)
