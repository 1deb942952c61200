"""Items: read from files of every container, named apart, drawn, and refused with the column, row and file."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tureen.labelling.items import read_items
from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import BadFile, BadRecord
from tureen_train.evaluation.items import (
    Item,
    LoadedItems,
    number_repeated_ids,
    read_pairs,
    read_published_rows,
    read_turns,
)

DATA = Path(__file__).parent / "data"


def item(name: str, *answers: str, scores: tuple[float, ...] = (1.0, 0.0)) -> Item:
    return Item(name, (user_turn("q"),), tuple((assistant_turn(answer),) for answer in answers), scores)


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_come_from_any_form_with_their_subset_and_file(tmp_path: Path) -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "subset": "odd", "id": 7}
    loaded = read_pairs([DATA / "hh.jsonl", jsonl(tmp_path / "own.jsonl", row, {**row, "id": None, "subset": None})])
    assert {one.file for one in loaded.items} == {"hh.jsonl", "own.jsonl"}
    seventh, last = loaded.items[-2:]
    assert (seventh.id, seventh.subset, seventh.scores) == ("7", "odd", (1.0, 0.0))
    assert (last.id, last.subset) == ("own.jsonl:2", "")
    assert loaded.files["hh.jsonl"]["kept"] == 4
    assert loaded.files["hh.jsonl"]["dropped_answers"] == {"blank": 1}
    assert any("blank" in note for note in loaded.notes)


def test_what_is_dropped_is_told(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "own.jsonl", {"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "q"})
    loaded = read_pairs([path])
    assert loaded.files["own.jsonl"]["dropped"] == {"unknown form": 1}
    assert any("own.jsonl:2" in note for note in loaded.notes)


def test_data_without_anything_to_compare_are_refused(tmp_path: Path) -> None:
    tied = {"prompt": "q", "chosen": "a", "rejected": "b", "chosen_score": 1, "rejected_score": 1}
    with pytest.raises(BadFile, match=r"ties\.jsonl: no item has an answer that is better.*all scores are equal"):
        read_pairs([jsonl(tmp_path / "ties.jsonl", tied)])
    with pytest.raises(BadFile, match="--domain"):
        read_pairs([DATA / "dsp_domains.cc-by-nc.json"])
    assert read_pairs([DATA / "dsp_domains.cc-by-nc.json"], domain="academy").items[0].pairs
    with pytest.raises(BadFile, match="no item is left"):
        read_pairs([jsonl(tmp_path / "none.jsonl", {"prompt": "q"})])
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(BadFile, match=r"empty\.jsonl is empty"):
        read_pairs([tmp_path / "empty.jsonl"])


def test_unlabelled_answers_make_no_pairs() -> None:
    assert item("x", "a", "b", "c", scores=(math.nan, 2.0, 1.0)).pairs == [(1, 2)]


def test_lengths_are_the_answers_own_characters() -> None:
    assert item("x", "four", "").lengths == [4, 0]


def test_a_digest_is_of_content_not_of_name() -> None:
    assert item("x", "a", "b").digest == item("y", "a", "b").digest
    assert len({item("x", "a", "b").digest, item("x", "b", "a").digest, item("x", "a", "b", scores=(1, 1)).digest}) == 3
    assert item("x", "a", "b", scores=(math.nan, 1)).digest == item("x", "a", "b", scores=(float("nan"), 1)).digest


def test_tools_are_kept_and_are_part_of_the_digest(tmp_path: Path) -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    tools = [{"type": "function", "function": {"name": "f"}}]
    loaded = read_pairs([jsonl(tmp_path / "own.jsonl", row, {**row, "tools": tools}, {**row, "tools": []})])
    assert [dict(one.template_arguments) for one in loaded.items] == [{}, {"tools": tools}, {}]
    first, second, third = (one.digest for one in loaded.items)
    assert first == third != second


def test_equal_ids_are_numbered() -> None:
    assert [one.id for one in number_repeated_ids([item("x"), item("y"), item("x"), item("x")])] == [
        "x",
        "y",
        "x#2",
        "x#3",
    ]


def test_a_limit_draws_by_content_and_keeps_the_order() -> None:
    items = [item(str(number), f"a{number}", "b") for number in range(20)]
    loaded = LoadedItems(items, {})
    few, more = loaded.limited(5), loaded.limited(9)
    assert [one.id for one in few.items] == sorted((one.id for one in few.items), key=int)
    assert {one.id for one in few.items} < {one.id for one in more.items}
    assert {one.id for one in LoadedItems(items[::-1], {}).limited(5).items} == {one.id for one in few.items}
    assert few.notes == ["5 of 20 items, drawn by a hash of their content"]
    assert loaded.limited(None) is loaded.limited(20) is loaded


# --------------------------------------------------------------------------- published columns

NEEDS: dict[str, type | tuple[type, ...]] = {"prompt": (str, list), "chosen": str}


def test_rows_are_read_from_gzip(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"prompt": "q", "chosen": "a"}).encode()))
    assert read_published_rows(path, NEEDS) == [(f"{path}:1", {"prompt": "q", "chosen": "a"})]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "q"}, "missing column: `chosen` is missing or null; the row has prompt"),
        ({"prompt": "q", "chosen": None}, "missing column: `chosen`"),
        ({"prompt": 3, "chosen": "a"}, "`prompt` must be a string or a list, is a number"),
        ({"prompt": "q", "chosen": ["a"]}, "`chosen` must be a string, is a list"),
        ("words", "a row must be an object"),
    ],
)
def test_a_bad_row_is_named_with_its_file(row: Any, says: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", {"prompt": "q", "chosen": "a"}, row)
    with pytest.raises(BadRecord, match=r"rows\.jsonl:2: ") as caught:
        read_published_rows(path, NEEDS)
    assert says in str(caught.value)


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q", "chosen": "a"}\n{"prompt": \n')
    with pytest.raises(BadRecord, match=r"rows\.jsonl:2: not JSON"):
        read_published_rows(path, NEEDS)


def test_prompts_and_answers_are_strings_or_messages() -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert read_turns({"prompt": "\n\nHuman: q"}, "prompt", "x") == (user_turn("\n\nHuman: q"),)
    assert read_turns({"prompt": talk}, "prompt", "x") == tuple(talk)
    assert read_turns({"chosen": ""}, "chosen", "x") == (assistant_turn(""),)
    with pytest.raises(BadRecord, match=r"rows:4: bad message: `prompt\[0\]"):
        read_turns({"prompt": [{"role": "user"}]}, "prompt", "rows:4")


@pytest.mark.parametrize("name", ["in.json", "in.jsonl", "in.csv", "in.parquet"])
def test_a_record_has_the_same_id_when_it_is_labelled(tmp_path: Path, name: str) -> None:
    rows = [{"prompt": "q", "chosen": f"good {place}", "rejected": "bad"} for place in range(3)]
    path = tmp_path / name
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(rows))
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".csv":
            path.write_text("\n".join(["prompt,chosen,rejected", *(",".join(row.values()) for row in rows)]))
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    first = 2 if name == "in.csv" else 1  # the first line of a table names the columns
    ids = [f"{name}:{number}" for number in range(first, first + 3)]
    assert [item.id for item in read_pairs([path]).items] == ids
    assert [line.id for line in read_items(path)] == ids
