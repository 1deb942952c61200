"""Files of items: every container, every bad line, and the names that rows get."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from datasets import Dataset, DatasetDict
from pyarrow.parquet import write_table

from tureen import item_files
from tureen.errors import TureenError, Unprocessable
from tureen.item_forms import RowReading
from tureen.labelling import items

PAIR: dict[str, Any] = {"prompt": "Why?", "candidates": ["Because.", "No idea."]}
TALK: dict[str, Any] = {
    "prompt": [{"role": "user", "content": "Why?"}],
    "candidates": [[{"role": "assistant", "content": "Because."}], [{"role": "assistant", "content": "No."}]],
    "id": "mine",
}


def write(path: Path, *given: Any) -> Path:
    text = "".join(f"{json.dumps(row)}\n" for row in given)
    if path.suffix == ".parquet":
        write_table(pyarrow.Table.from_pylist(list(given)), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(given))
    else:
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.json", "in.parquet", "in.txt"])
def test_every_container_gives_the_same_items(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, {**PAIR, "id": None}, {**PAIR, "id": "mine"})
    first, second = items.read_items(path)
    assert (first.number, first.id, second.number, second.id) == (1, f"{name}:1", 2, "mine")
    assert first.item is not None
    assert first.item.request() == PAIR
    assert first.place == f"{path}, {'item' if name in ('in.json', 'in.parquet') else 'line'} 1"
    assert item_files.count_items(path) == 2


def test_conversations_come_out_of_parquet_without_the_nulls_of_other_rows(tmp_path: Path) -> None:
    named = {**TALK, "prompt": [{"role": "user", "content": "Why?", "name": "Ann"}]}
    path = write(tmp_path / "in.parquet", named, {**TALK, "id": "other"})
    first, second = items.read_items(path)
    assert first.item is not None
    assert second.item is not None
    assert first.item.request()["prompt"][0]["name"] == "Ann"
    assert second.item.request() == {name: TALK[name] for name in ("prompt", "candidates")}


def test_a_saved_dataset_is_read_without_the_nulls_of_other_rows(tmp_path: Path) -> None:
    named = {**TALK, "prompt": [{"role": "user", "content": "Why?", "name": "Ann"}]}
    Dataset.from_list([named, {**TALK, "id": None}]).save_to_disk(tmp_path / "set")
    first, second = items.read_items(tmp_path / "set")
    assert (first.id, first.place, second.id) == ("mine", f"{tmp_path}/set, item 1", "set:2")
    assert first.item is not None
    assert second.item is not None
    assert first.item.request()["prompt"][0]["name"] == "Ann"
    assert second.item.request() == {name: TALK[name] for name in ("prompt", "candidates")}
    assert item_files.count_items(tmp_path / "set") == 2


def test_a_folder_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    both = Dataset.from_list([PAIR])
    DatasetDict(train=both, test=both).save_to_disk(tmp_path / "two")
    for folder, says in ((tmp_path, "no Hugging Face dataset was saved"), (tmp_path / "two", "as .*two/train$")):
        for read in (item_files.count_items, item_files.read_rows):
            with pytest.raises(Unprocessable, match=says):
                read(folder)


def test_texts_are_turns() -> None:
    prompt, answers = items.Item.model_validate(PAIR).conversation()
    assert [message.plain() for message in prompt] == [{"role": "user", "content": "Why?"}]
    assert [[message.plain() for message in answer] for answer in answers] == [
        [{"role": "assistant", "content": text}] for text in PAIR["candidates"]
    ]
    assert items.Item.model_validate(TALK).conversation()[0][0].content == "Why?"


def test_empty_lines_count_and_are_no_items(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(f"{json.dumps(PAIR)}\n\n  \n{json.dumps({**PAIR, 'prompt': chr(0x2028)}, ensure_ascii=False)}\r\n")
    found = list(items.read_items(path))
    assert [line.number for line in found] == [1, 4]
    assert item_files.count_items(path) == 2
    assert found[1].item is not None
    assert found[1].item.prompt == "\u2028"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "this is not JSON"),
        (b'{"a": "\xff"}', "this is not UTF-8: at byte 7"),
        (b"[" * 100_000, "this is not JSON"),
        (b'"text"', 'an item is an object, as {"prompt": ..., "candidates": [...]}, not a string'),
        (b'["a", "b"]', "an item is an object"),
        (b'{"chosen": "a", "rejected": "b"}', "`chosen` must begin with 'Human:'"),
        (b'{"prompt": "q", "chosen": "a", "rejected": "b", "context": "c"}', "`context` changes the text"),
        (b'{"prompt": "x"}', 'neither an item, as {"prompt": ..., "candidates": [...]}, nor preference data'),
        (b'{"question": "x", "liked": "a"}', "columns question, liked are none of the known forms"),
        (b'{"question": "x", "liked": "a"}', "rename columns with --map OLD=NEW, or choose a --form"),
        (b'{"question": "x", "liked": "a"}', "prompt-pair: prompt, chosen, rejected; hh: "),
        (b'{"prompt": "x", "candidates": ["a"]}', "candidates: list should have at least 2 items"),
        (b'{"prompt": 3, "candidates": ["a", "b"]}', "prompt: should be a valid string, or should be a valid list"),
        (b'{"prompt": "\\ud800", "candidates": ["a", "b"]}', "prompt: "),
        (b'{"prompt": "x", "candidates": ["a", "b"], "source": "s"}', "source: is not a field of an item, which has"),
        (b'{"prompt": "x", "candidates": ["a", "b"], "source": "s"}', "--map source=, or"),
        (b'{"prompt": "x", "candidates": ["a", "b"], "models": ["m"]}', "names 1 and there are 2 candidates"),
    ],
)
def test_a_bad_line_says_what_is_wrong_and_the_next_one_is_read(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(line + b"\n" + json.dumps(PAIR).encode())
    bad, good = items.read_items(path)
    assert isinstance(bad.error, TureenError)
    assert says in str(bad.error)
    assert (bad.item, bad.number, bad.id) == (None, 1, "in.jsonl:1")
    assert (good.error, good.number) == (None, 2)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("in.json", b"[{", "in.json:1 is not JSON"),
        ("in.json", b'{"items": [{}], "rewards": []}', "further keys `rewards`"),
        ("in.parquet", b"PAR", "in.parquet is no JSON in UTF-8, JSON Lines, gzip of those, or Parquet"),
        ("in.parquet", b"PAR1", "in.parquet is a damaged Parquet file"),
        ("in.jsonl.gz", gzip.compress(b"{}" * 9999, mtime=0)[:-9], "in.jsonl.gz is a damaged or truncated gzip"),
    ],
)
def test_a_file_that_cannot_be_read_at_all(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unprocessable, match=says):
        list(items.read_items(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        list(items.read_items(tmp_path / f"no-{name}"))
    with pytest.raises(Unprocessable, match=says):
        item_files.count_items(tmp_path / name)


def test_a_body_with_items_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps({"items": [PAIR, PAIR]}))
    assert [line.number for line in items.read_items(tmp_path / "in.json")] == [1, 2]


def test_the_second_line_of_an_id_is_a_bad_one_by_whatever_type_it_is_written(tmp_path: Path) -> None:
    named = [{**PAIR, "id": "7"}, {**PAIR, "id": 7}, PAIR, {**PAIR, "id": "in.jsonl:3"}, {**PAIR, "id": "8"}]
    found = list(items.read_items(write(tmp_path / "in.jsonl", *named)))
    assert [line.number for line in found if line.item is None] == [2, 4]
    for line, name in ((found[1], "7"), (found[3], "in.jsonl:3")):
        assert line.error is not None
        assert (line.error.param, line.error.code) == ("id", "duplicate_id")
        assert line.error.message == f"the id {name!r} stands on another line too"


def test_a_bad_line_does_not_use_its_id_up(tmp_path: Path) -> None:
    first, second = items.read_items(write(tmp_path / "in.jsonl", {"prompt": "x", "id": "7"}, {**PAIR, "id": "7"}))
    assert (first.item, second.id, second.error) == (None, "7", None)


def test_a_renaming_mends_an_item_with_an_unknown_column(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({**PAIR, "source": "s", "number": 7}))
    (line,) = items.read_items(path, RowReading(renamed={"source": "", "number": "id"}))
    assert line.item is not None
    assert (line.id, line.item.request()) == ("7", PAIR)
