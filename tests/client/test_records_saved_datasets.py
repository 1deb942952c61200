"""Folders that ``datasets`` saved: read with their splits, listed, and refused where they are damaged."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from tureen.records.containers import read_rows
from tureen.records.saved_datasets import is_saved_dataset, list_splits
from tureen.records.schema import BadFile, BadOption

ITEMS: list[dict[str, Any]] = [{"a": 1, "b": "x"}, {"a": 2, "b": "ü\u2028\n"}, {"a": 3, "b": ""}]


def found(path: Path, split: str | None = None) -> list[object]:
    return [item for _, item in read_rows(path, split)]


def test_a_saved_dataset_is_read(tmp_path: Path) -> None:
    Dataset.from_list(ITEMS).save_to_disk(tmp_path / "set")
    assert [*read_rows(tmp_path / "set")] == [(f"{tmp_path}/set:{i}", item) for i, item in enumerate(ITEMS, 1)]
    with pytest.raises(BadOption, match="without splits; leave split='train' out"):
        found(tmp_path / "set", "train")


def test_a_saved_dataset_dict_needs_a_split_where_it_has_several(tmp_path: Path) -> None:
    both = {"train": Dataset.from_list(ITEMS), "test": Dataset.from_list(ITEMS[:1])}
    DatasetDict(both).save_to_disk(tmp_path / "two")
    DatasetDict(train=both["train"]).save_to_disk(tmp_path / "one")
    assert [*read_rows(tmp_path / "two", "test")] == [(f"{tmp_path}/two/test:1", ITEMS[0])]
    assert found(tmp_path / "one") == ITEMS
    assert found(tmp_path / "two" / "test") == ITEMS[:1]
    for wrong, says in ((None, "; name one, or give its folder, as .*two/train"), ("dev", "; 'dev' is none of them;")):
        with pytest.raises(BadOption, match=f"has the splits train, test{says}"):
            found(tmp_path / "two", wrong)


def test_the_splits_of_a_saved_dataset_are_listed(tmp_path: Path) -> None:
    one = Dataset.from_list(ITEMS)
    one.save_to_disk(tmp_path / "set")
    DatasetDict(train=one, test=one).save_to_disk(tmp_path / "two")
    assert [list_splits(tmp_path / name) for name in ("set", "two")] == [[], ["train", "test"]]
    assert [is_saved_dataset(tmp_path / name) for name in ("set", "two", ".")] == [True, True, False]
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "two" / "dataset_dict.json").write_text(damaged)
        with pytest.raises(BadFile, match="two is a damaged dataset"):
            list_splits(tmp_path / "two")
