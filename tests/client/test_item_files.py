"""Files of items: what is read, and where errors are placed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tureen import InvalidRequest, Unprocessable, item_files
from tureen.item_files import Row
from tureen.item_forms import RowReading


def item(size: int) -> dict[str, Any]:
    return {"prompt": "p", "candidates": ["x" * size, "xx"]}


@pytest.mark.parametrize("document", [[item(1), item(2)], {"items": [item(1), item(2)]}])
def test_a_json_file_holds_a_list_or_a_body(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps(document))
    assert item_files.read_rows(path) == [
        Row(f"{path}, item 1", item(1)),
        Row(f"{path}, item 2", item(2)),
    ]


def test_json_lines_are_counted_with_the_empty_ones(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    second = '{"prompt": "\u2028", "candidates": ["a"]}'
    path.write_text(f"{json.dumps(item(1))}\n\n{second}\r\n", encoding="utf-8")
    assert item_files.read_rows(path) == [
        Row(f"{path}, line 1", item(1)),
        Row(f"{path}, line 3", {"prompt": "\u2028", "candidates": ["a"]}),
    ]


def test_an_id_is_read_apart(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({**item(1), "id": name}) + "\n" for name in ("a", 7, None)))
    assert [(row.id, row.item) for row in item_files.read_rows(path)] == [("a", item(1)), (7, item(1)), (None, item(1))]


HH = {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"chosen": "a", "rejected": "b"}, "`chosen` must begin with 'Human:'"),
        ({"prompt": "Why?", "chosen": "a", "rejected": "b", "images": ["x"]}, "`images` changes the text"),
        ({**HH, "tools": "calculator"}, "tools"),
        (["a", "b"], "line 1: an item is an object, as {"),
        ("a", "not a string"),
        (None, "not null"),
        (True, "not a boolean"),
        (1.5, "not a number"),
        ({**item(1), "id": 1.5}, "line 1: id: must be a string or an integer"),
        ({**item(1), "id": True}, "line 1: id: must be a string or an integer"),
        ({**item(1), "mood": "x"}, "line 1: mood: is not a field of an item, which has"),
        ({**item(1), "mood": "x"}, "leave it out with --map mood="),
        ({"question": "x", "liked": "a"}, "columns question, liked are none of the known forms"),
    ],
)
def test_a_row_of_another_form_says_what_to_do(tmp_path: Path, row: Any, says: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(Unprocessable, match=re.escape(says)):
        item_files.read_rows(path)


WHY = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    "row",
    [
        HH,
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        {"messages": WHY, "chosen": {"role": "assistant", "content": "Because."}, "rejected": "No."},
        {"prompt": "Why?", "response_0": "Because.", "response_1": "No.", "better_response_id": 1},
        {"instruction": "Why?", "completions": [{"response": "Because."}, {"response": "No."}]},
        {"prompt": "Why?", "candidates": [{"text": "Because."}, {"text": "No."}]},
    ],
)
def test_every_form_of_preference_data_gives_the_same_item(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({**row, "id": 3, "score": None}) + "\n")
    (found,) = item_files.read_rows(path)
    answers = [[{"role": "assistant", "content": text}] for text in ("Because.", "No.")]
    assert (found.id, found.item) == (3, {"prompt": WHY, "candidates": answers})


CALL = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}


def test_tools_and_turns_of_tools_are_passed_on(tmp_path: Path) -> None:
    called = [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "Two.", "reasoning_content": "f says so"},
    ]
    row = {"prompt": WHY, "chosen": called, "rejected": "No.", "tools": [{"name": "f"}]}
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({**row, "chat_template_kwargs": {"enable_thinking": False}}) + "\n")
    (found,) = item_files.read_rows(path)
    assert found.item == {
        "prompt": WHY,
        "candidates": [called, [{"role": "assistant", "content": "No."}]],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_a_table_of_text_and_names_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"\xef\xbb\xbfAufgabe,eins,zwei\r\nWhy?,Because.,No.\r\n\r\n")
    reading = RowReading("pair", {"Aufgabe": "prompt", "eins": "chosen", "zwei": "rejected"})
    (found,) = item_files.read_rows(path, reading)
    assert found.place == f"{path}, line 2"
    assert found.item["prompt"] == WHY
    assert item_files.count_items(path) == 1


def test_a_byte_order_mark_is_nothing(tmp_path: Path) -> None:
    for name in ("in.jsonl", "in.json"):
        text = json.dumps(item(1) if name == "in.jsonl" else [item(1)])
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert [row.item for row in item_files.read_rows(tmp_path / name)] == [item(1)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", b'{"messages": []}\n{', "in.jsonl, line 2: this is not JSON"),
        ("in.json", b"{", "in.json, item 1: this is not JSON"),
        ("in.json", b"{}", "in.json, item 1: this is neither an item"),
        ("in.json", b"3", "in.json is no JSON in UTF-8, JSON Lines"),
        ("in.json", b"[]", "in.json holds no items"),
        ("in.jsonl", b"\n \n", "in.jsonl holds no items"),
        ("in.jsonl", b'{"a": "\xff"}', "in.jsonl, line 1: this is not UTF-8: at byte 7"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unprocessable, match=message):
        item_files.read_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("message", "param", "placed"),
    [
        ("items[1].candidates[0]: is too long", "items[1].candidates[0]", "second: candidates[0]: is too long"),
        ("items[1]: give `messages`", "items[1]", "second: give `messages`"),
        ("a lone surrogate", "items[1].prompt", "second: a lone surrogate"),
        ("unknown reward", "rewards[1]", "unknown reward"),
    ],
)
def test_an_error_names_the_rows_place(message: str, param: str, placed: str) -> None:
    given = [Row("first", {}), Row("second", {})]
    with pytest.raises(InvalidRequest) as caught, item_files.name_rows_in_errors(given):
        raise Unprocessable(message, param=param, code="word", request_id="r")
    assert str(caught.value) == placed
    assert (caught.value.param, caught.value.code, caught.value.request_id) == (param, "word", "r")


def test_steps_stay_an_item_where_a_column_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": "p", "steps": ["a", "b"], "mood": "x"}))
    (row,) = item_files.read_rows(path, RowReading(renamed={"mood": ""}))
    assert row.item == {"prompt": "p", "steps": ["a", "b"]}


@pytest.mark.parametrize("name", ["in.json", "in.txt"])
@pytest.mark.parametrize("listed", [True, False])
def test_the_content_says_what_a_file_is(tmp_path: Path, name: str, listed: bool) -> None:
    path, given = tmp_path / name, [item(1), item(2)]
    path.write_text(json.dumps(given) if listed else "\n".join(map(json.dumps, given)))
    assert [row.item for row in item_files.read_rows(path)] == given
    assert item_files.count_items(path) == 2


@pytest.mark.parametrize(("name", "content"), [("in.jsonl", "%s\n%s"), ("in.json", "[%s, %s]")])
def test_a_key_that_is_named_twice_is_refused(tmp_path: Path, name: str, content: str) -> None:
    good = json.dumps(item(1))
    path = tmp_path / name
    path.write_text(content % (good, good.replace('"prompt"', '"prompt": "x", "prompt"')))
    with pytest.raises(Unprocessable, match=f"{item_files.find_unit(path)} 2: repeated key: `prompt` is named twice"):
        item_files.read_rows(path)


@pytest.mark.parametrize("name", ["gone.jsonl", "gone.json", "gone.csv"])
def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        item_files.read_rows(tmp_path / name)


@pytest.mark.parametrize("name", ["in.jsonl", "in.json", "in.csv"])
def test_an_empty_file_has_no_items(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b" \n")
    assert list(item_files.iterate_items(tmp_path / name)) == []
    assert item_files.count_items(tmp_path / name) == 0
