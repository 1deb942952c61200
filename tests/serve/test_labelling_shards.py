"""Which files are labelled, and where their rows go."""

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from tureen.errors import InvalidRequest, Unprocessable
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


def test_saved_datasets_and_their_splits(tmp_path: Path) -> None:
    one = Dataset.from_list([{"prompt": "p", "candidates": ["a", "b"]}])
    one.save_to_disk(tmp_path / "v1.0")
    DatasetDict(train=one).save_to_disk(tmp_path / "single")
    DatasetDict(train=one, test=one).save_to_disk(tmp_path / "two")
    out = tmp_path / "out"
    found = find_shards([tmp_path / name for name in ("v1.0", "single", "two", "two/test")], out, ".jsonl")
    names = {"v1.0": "v1.0", "single": "single", "two/train": "two-train", "two/test": "two-test"}
    assert [(str(each.source.relative_to(tmp_path)), each.target) for each in found] == [
        *((source, out / f"{name}.jsonl") for source, name in names.items()),
        ("two/test", out / "test.jsonl"),
    ]
    for inside in (tmp_path / "v1.0", tmp_path / "v1.0" / "out"):
        with pytest.raises(InvalidRequest, match="would be overwritten"):
            find_shards([tmp_path / "v1.0"], inside, ".jsonl")
    (tmp_path / "two" / "dataset_dict.json").write_text("{")
    with pytest.raises(Unprocessable, match="damaged dataset"):
        find_shards([tmp_path / "two"], out, ".jsonl")


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
