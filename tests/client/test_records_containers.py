"""Files of every container: told apart by content, streamed, and named when damaged."""

import codecs
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset

from tureen.records.containers import compute_digest, count_rows, detect_container, read_rows
from tureen.records.schema import BadFile, BadOption, BadRecord

ITEMS: list[dict[str, Any]] = [{"a": 1, "b": "x"}, {"a": 2, "b": "ü\u2028\n"}, {"a": 3, "b": ""}]
LIST = json.dumps(ITEMS).encode()
LINES = b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in ITEMS)


def saved(tmp_path: Path, content: bytes, name: str = "file") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def found(path: Path, split: str | None = None) -> list[object]:
    return [item for _, item in read_rows(path, split)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "container"),
    [
        (LIST, "list"),
        (b" \r\n" + json.dumps(ITEMS, indent=2).encode() + b"\n\n", "list"),
        (codecs.BOM_UTF8 + LIST, "list"),
        (LINES, "lines"),
        (LINES.strip(), "lines"),
        (LINES.replace(b"\n", b"\r\n"), "lines"),
        (b"\n\n" + LINES.replace(b"\n", b"\n \r\n"), "lines"),
        (codecs.BOM_UTF8 + LINES, "lines"),
    ],
    ids=["list", "indented", "list-bom", "lines", "no-last-break", "crlf", "blank-lines", "lines-bom"],
)
def test_json_is_read_whatever_the_name(tmp_path: Path, content: bytes, container: str, pack: Any) -> None:
    path = saved(tmp_path, pack(content), "data.parquet")
    assert detect_container(path) == container
    assert found(path) == ITEMS


def test_a_list_counts_items_and_lines_count_lines(tmp_path: Path) -> None:
    assert [source for source, _ in read_rows(saved(tmp_path, LIST))] == [f"{tmp_path}/file:{i}" for i in (1, 2, 3)]
    gapped = b"\n" + LINES.replace(b"\n", b"\n\n")
    assert [source for source, _ in read_rows(saved(tmp_path, gapped))] == [f"{tmp_path}/file:{i}" for i in (2, 4, 6)]


def test_an_empty_list_has_no_records(tmp_path: Path) -> None:
    assert found(saved(tmp_path, b"[ \n]")) == []


def test_one_object_over_several_lines_is_one_record(tmp_path: Path) -> None:
    path = saved(tmp_path, json.dumps(ITEMS[0], indent=2).encode())
    assert [*read_rows(path)] == [(f"{path}:1", ITEMS[0])]


def test_parquet_is_read_in_batches(tmp_path: Path) -> None:
    many = [{"a": index, "b": str(index)} for index in range(2500)]
    path = tmp_path / "file.json"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(many), path, row_group_size=700)
    assert detect_container(path) == "parquet"
    assert [*read_rows(path)] == [(f"{path}:{number}", item) for number, item in enumerate(many, 1)]


def test_a_file_has_no_splits(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="is a file and has no splits"):
        found(saved(tmp_path, LIST), "train")


@pytest.mark.parametrize(
    ("line", "reason", "words"),
    [
        (b'{"a": 1', "not JSON", "Expecting"),
        (b'{"a": 1} {"a": 2}', "not JSON", "Extra data"),
        (b"{'a': 1}", "not JSON", "double quotes"),
        (b'{"a": "\xff"}', "not UTF-8", "byte 7"),
        (b'{"a": 1, "b": 2, "a": 3}', "repeated key", "`a` is named twice"),
        (b'{"a": {"c": [{"b": 1, "b": 1}]}}', "repeated key", "`b` is named twice"),
        (b'{"a": ' + b"[" * 100_000, "not JSON", "recursion"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON", "limit"),
    ],
)
def test_a_line_that_cannot_be_decoded_is_named_and_the_next_is_read(
    tmp_path: Path, line: bytes, reason: str, words: str
) -> None:
    path = saved(tmp_path, b'{"a": 0}\n' + line + b'\n{"a": 9}\n')
    first, bad, last = found(path)
    assert (first, last) == ({"a": 0}, {"a": 9})
    assert isinstance(bad, BadRecord)
    assert bad.reason == reason
    assert words in bad.detail


def test_a_repeated_key_spoils_only_its_item_of_a_list(tmp_path: Path) -> None:
    first, bad, last = found(saved(tmp_path, b'[{"a": 1}, {"a": {"b": 1, "b": 2}} , {"a": 3}]'))
    assert (first, last) == ({"a": 1}, {"a": 3})
    assert isinstance(bad, BadRecord)
    assert bad.reason == "repeated key"


@pytest.mark.parametrize(
    ("content", "kept", "words"),
    [
        (b'[{"a": 1}, {"a": 2', 1, r"file:2 is not JSON, or the file is truncated"),
        (b'[{"a": 1}, ', 1, r"file:2 is not JSON"),
        (b'[{"a": 1}', 0, r"after .*file:1 comes '' instead of '\]' or ','.*; is the file truncated"),
        (b'[{"a": 1}, ]', 0, r"after .*file:1 comes ', \]'"),
        (b'[{"a": 1} {"a": 2}]', 0, r"after .*file:1 comes '\{"),
        (b'[{"a": 1}] [', 1, "goes on after its list ends"),
        (b'[{"a": "\xff"}]', 0, "is not UTF-8 at byte 8"),
        (b"[" * 100_000, 0, "recursion"),
    ],
)
def test_a_damaged_list_is_fatal_after_what_is_whole(tmp_path: Path, content: bytes, kept: int, words: str) -> None:
    stream = read_rows(saved(tmp_path, content))
    for _ in range(kept):
        next(stream)
    with pytest.raises(BadFile, match=words):
        list(stream)


@pytest.mark.parametrize("cut", [5, 40, -9, -1])
@pytest.mark.parametrize("content", [LINES * 50, json.dumps(ITEMS * 50).encode()], ids=["lines", "list"])
def test_a_truncated_gzip_is_fatal(tmp_path: Path, content: bytes, cut: int) -> None:
    with pytest.raises(BadFile, match="damaged or truncated gzip"):
        found(saved(tmp_path, gzip.compress(content)[:cut]))


def test_a_gzip_with_flipped_bits_is_fatal(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(LINES * 50))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(BadFile, match="damaged or truncated gzip"):
        found(saved(tmp_path, bytes(packed)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (codecs.BOM_UTF8, "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"prompt,chosen\n", "begins with b'prompt,chosen"),
        (json.dumps(ITEMS).encode("utf-16"), "is no JSON in UTF-8"),
        (b"PAR1 and nothing else", "damaged Parquet"),
    ],
)
def test_what_is_no_container_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(BadFile, match=words):
        found(saved(tmp_path, content))


def test_a_path_that_is_not_there_or_holds_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="No such file"):
        found(tmp_path / "gone")
    with pytest.raises(BadFile, match="no Hugging Face dataset was saved"):
        found(tmp_path)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(BadFile, match="damaged dataset"):
        found(tmp_path)


def test_the_digest_follows_the_content_of_a_file(tmp_path: Path) -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert compute_digest(saved(tmp_path, b"")) == empty
    assert compute_digest(saved(tmp_path, b"x", "other")) != empty


def test_the_digest_of_a_folder_follows_names_and_contents(tmp_path: Path) -> None:
    def folder(name: str, **files: str) -> str:
        (tmp_path / name / "inner").mkdir(parents=True)
        for file, text in files.items():
            (tmp_path / name / "inner" / file).write_text(text)
        return compute_digest(tmp_path / name)

    assert folder("one", a="1", b="2") == folder("two", b="2", a="1")
    assert (
        len({folder("three", a="1"), folder("four", b="1"), folder("five", a="2"), compute_digest(tmp_path / "one")})
        == 4
    )


@pytest.mark.parametrize("name", ["data", "items", "rows", "records"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_under_one_key_is_read(tmp_path: Path, name: str, indent: int | None) -> None:
    path = saved(tmp_path, json.dumps({name: ITEMS}, indent=indent).encode())
    assert [*read_rows(path)] == [(f"{path}:{number}", item) for number, item in enumerate(ITEMS, 1)]


def test_an_object_that_opens_its_list_on_the_first_line_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, b'{"data": [\n{"a": 1},\n{"a": 2}\n]}')
    assert found(path) == [{"a": 1}, {"a": 2}]


def test_a_list_under_one_key_beside_others_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, json.dumps({"version": 2, "data": ITEMS}).encode())
    with pytest.raises(BadFile, match="records in `data` and the further keys `version`: write the list alone"):
        found(path)


@pytest.mark.parametrize(
    "rows",
    [
        [{"data": ITEMS}, {"data": ITEMS}],
        [{"data": [{"role": "user", "content": "q"}], "chosen": "a"}],
        [{"data": {"prompt": "q"}, "annotations": []}],
        [{"data": [], "a": 1}],
        [{"data": ["a"], "b": 1}],
        [{"prompt": "q", "samples": ITEMS}],
    ],
    ids=["several", "messages", "object", "empty", "texts", "prompt"],
)
def test_other_objects_stay_records(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    assert found(saved(tmp_path, b"\n".join(json.dumps(row).encode() for row in rows))) == rows


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (LIST, "in.json"),
        (LINES, "in.jsonl"),
        (b'\n{"data": ' + LIST + b"}", "in.json"),
        (b'a,b\n1,x\n2,"\n"\n3,\n', "in.csv"),
    ],
)
def test_rows_are_counted_as_they_are_read(tmp_path: Path, content: bytes, name: str) -> None:
    assert count_rows(saved(tmp_path, content, name)) == len(ITEMS)


def test_rows_of_parquet_and_datasets_are_counted(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ITEMS), tmp_path / "file")
    Dataset.from_list(ITEMS).save_to_disk(tmp_path / "set")
    assert (count_rows(tmp_path / "file"), count_rows(tmp_path / "set")) == (3, 3)
