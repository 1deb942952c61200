"""A new folder appears whole or not at all."""

from pathlib import Path

import pytest

from tureen_train.importing.new_folder import fill_folder


def test_the_folder_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "new"
    with fill_folder(target) as scratch:
        (scratch / "file").write_text("all")
        assert not target.exists()
    assert (target / "file").read_text() == "all"
    assert target.stat().st_mode & 0o777 == 0o755
    assert [each.name for each in target.parent.iterdir()] == ["new"]


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with fill_folder(tmp_path / "new") as scratch:
            (scratch / "file").write_text("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_another_refused(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with fill_folder(tmp_path / "new") as scratch:
        (scratch / "file").write_text("all")
    for target in (tmp_path / "new", tmp_path / "new" / "file"):
        with pytest.raises(FileExistsError, match="exists already: choose another folder"), fill_folder(target):
            pass
    assert (tmp_path / "new" / "file").read_text() == "all"
