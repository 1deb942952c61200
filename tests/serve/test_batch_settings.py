"""What the server is told of files and batches."""

from pathlib import Path

import pytest

from tureen_serve.batch_settings import BatchSettings
from tureen_serve.settings import SettingsError, load_settings


def test_the_defaults_are_openais_limits_and_a_folder_of_the_users_own() -> None:
    told = BatchSettings()
    assert (told.lines, told.file_bytes, told.line_bytes) == (50_000, 200 * 2**20, 2**20)
    assert told.store_url == f"sqlite:///{Path.home()}/.local/share/tureen/batches.sqlite"
    assert told.files_url == f"{Path.home()}/.local/share/tureen/files"
    assert told.chunks == 1


def test_the_folder_holds_both_unless_they_are_named(tmp_path: Path) -> None:
    told = BatchSettings(folder=tmp_path)
    assert (told.store_url, told.files_url) == (f"sqlite:///{tmp_path}/batches.sqlite", f"{tmp_path}/files")
    told = BatchSettings(folder=tmp_path, store="postgresql://db/tureen", files="s3://bucket/tureen")
    assert (told.store_url, told.files_url) == ("postgresql://db/tureen", "s3://bucket/tureen")


def test_a_settings_file_anchors_the_folder(tmp_path: Path) -> None:
    (tmp_path / "server.yaml").write_text("batches: {folder: data, chunk_lines: 8}")
    told = load_settings(tmp_path / "server.yaml").batches
    assert (told.folder, told.chunk_lines) == (tmp_path / "data", 8)


def test_the_environment_may_tell_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUREEN_BATCHES__STORE", "postgresql://tureen@db/tureen")
    monkeypatch.setenv("TUREEN_BATCHES__FOLDER", "/var/spool/tureen")
    told = load_settings().batches
    assert told.store_url == "postgresql://tureen@db/tureen"
    assert told.files_url == "/var/spool/tureen/files"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"files": "data/files"}, "batches.files: must be a URL"),
        ({"chunk_lines": 0}, "batches.chunk_lines"),
        ({"lease_seconds": 0.1}, "batches.lease_seconds"),
        ({"colour": "red"}, "batches.colour"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: object, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load_settings(batches=options)
