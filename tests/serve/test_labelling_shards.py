"""Which files are labelled, and where their rows go."""

from pathlib import Path

import pytest

from tureen.errors import InvalidRequest
from tureen_serve.labelling.shards import find_shards


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_files_and_folders(tmp_path: Path) -> None:
    given = touch(tmp_path / "in", "b.jsonl", "a.jsonl.gz", "c.parquet", "d.json", "notes.txt", "deeper/e.jsonl")
    alone = touch(tmp_path, "alone.txt") / "alone.txt"
    found = find_shards([alone, given], tmp_path / "out", ".jsonl.gz")
    assert [each.source for each in found] == [alone, *(given / name for name in sources(given))]
    assert [each.target.name for each in found] == [
        "alone.jsonl.gz", "a.jsonl.gz", "b.jsonl.gz", "c.jsonl.gz", "d.jsonl.gz",
    ]  # fmt: skip
    assert {each.target.parent for each in found} == {tmp_path / "out"}


def sources(given: Path) -> list[str]:
    return ["a.jsonl.gz", "b.jsonl", "c.parquet", "d.json"]


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jsonl", "b/x.parquet")
    with pytest.raises(InvalidRequest, match=r"a/x\.jsonl and .*b/x\.parquet would both be written to .*x\.jsonl"):
        find_shards([tmp_path / "a", tmp_path / "b"], tmp_path / "out", ".jsonl")
    with pytest.raises(InvalidRequest, match="would both be written"):
        find_shards([tmp_path / "a", tmp_path / "a" / "x.jsonl"], tmp_path / "out", ".jsonl")


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    touch(tmp_path, "x.jsonl")
    with pytest.raises(InvalidRequest, match="would be overwritten"):
        find_shards([tmp_path], tmp_path, ".jsonl")
    assert len(find_shards([tmp_path], tmp_path, ".parquet")) == 1


def test_nothing_to_label_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="have no files of items"):
        find_shards([touch(tmp_path, "notes.txt")], tmp_path / "out", ".jsonl")
