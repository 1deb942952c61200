"""Files of items: what is read, where errors are placed, and what is written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client.conftest import HASTY
from client.standin import StandIn, refusal, reply, work

from tureen import Client, Conflict, InvalidRequest, Unavailable, Unprocessable, rows


def item(size: int) -> dict[str, Any]:
    return {"prompt": "p", "candidates": ["x" * size, "xx"]}


@pytest.fixture
def client(standin: StandIn) -> Iterator[Client]:
    with Client(standin.url, retries=HASTY) as client:
        yield client


@pytest.mark.parametrize("document", [[item(1), item(2)], {"items": [item(1), item(2)]}])
def test_a_json_file_holds_a_list_or_a_body(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps(document))
    assert rows.read(path) == [rows.Row(f"{path}, item 1", item(1)), rows.Row(f"{path}, item 2", item(2))]


def test_json_lines_are_counted_with_the_empty_ones(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(f'{json.dumps(item(1))}\n\n"\u2028"\r\n', encoding="utf-8")
    assert rows.read(path) == [rows.Row(f"{path}, line 1", item(1)), rows.Row(f"{path}, line 3", "\u2028")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", b"{}\n{", "in.jsonl, line 2: this is not JSON"),
        ("in.json", b"{", "in.json: this is not JSON"),
        ("in.json", b"{}", "in.json holds no list of items"),
        ("in.json", b"3", "name it .jsonl"),
        ("in.json", b"[]", "in.json holds no items"),
        ("in.jsonl", b"\n \n", "in.jsonl holds no items"),
        ("in.jsonl", b'{"a": "\xff"}', "in.jsonl is not UTF-8: byte 7"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unprocessable, match=message):
        rows.read(tmp_path / name)


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
    given = [rows.Row("first", {}), rows.Row("second", {})]
    with pytest.raises(InvalidRequest) as caught, rows.placing(given):
        raise Unprocessable(message, param=param, code="word", request_id="r")
    assert str(caught.value) == placed
    assert (caught.value.param, caught.value.code, caught.value.request_id) == (param, "word", "r")


def label(client: Client, items: list[Any], target: Path, run: int = 2, **options: Any) -> tuple[rows.Tally, list[int]]:
    seen: list[int] = []
    given = [rows.Row(f"row {number}", each) for number, each in enumerate(items)]
    return rows.label(client, given, target, run, options, seen.append), seen


def test_labels_are_written_in_order_and_counted(client: Client, standin: StandIn, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    tally, seen = label(client, [item(size) for size in (1, 2, 3, 4, 5)], target)
    written = [json.loads(line) for line in target.read_text().splitlines()]
    assert [(each["index"], each["chosen"]) for each in written] == [(0, 1), (1, 0), (2, 0), (3, 0), (4, 0)]
    assert tally == rows.Tally(5, ties=1, left_out=0, prompt_tokens=25, fingerprint=standin.fingerprint)
    assert seen == [2, 2, 1]
    assert list(tmp_path.iterdir()) == [target]


def test_the_first_runs_models_are_demanded_of_all_others(client: Client, standin: StandIn, tmp_path: Path) -> None:
    label(client, [item(1)] * 3, tmp_path / "out.jsonl")
    assert [seen.json.get("fingerprint") for seen in standin.seen] == [None, standin.fingerprint]
    standin.fail(work, refusal(409, "fingerprint_mismatch", "another is loaded"))
    with pytest.raises(Conflict, match="another is loaded"):
        label(client, [item(1)] * 3, tmp_path / "out.jsonl")


def test_rows_for_trl_hold_what_its_trainers_read(client: Client, tmp_path: Path) -> None:
    label(client, [item(1)], tmp_path / "out.jsonl", format="trl")
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {
        "index": 0,
        "prompt": [{"role": "user", "content": "p"}],
        "chosen": [{"role": "assistant", "content": "xx"}],
        "rejected": [{"role": "assistant", "content": "x"}],
        "tie": False,
    }


def test_rows_that_may_be_left_out_are_counted(client: Client, tmp_path: Path) -> None:
    items = [item(1), {"prompt": "\ud800", "candidates": ["a", "b"]}, "text", item(3)]
    tally, _ = label(client, items, tmp_path / "out.jsonl", on_error="item")
    written = [json.loads(line)["index"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (written, tally.labelled, tally.left_out) == ([0, 3], 2, 2)


def test_a_failure_leaves_no_target_but_what_was_labelled_until_then(
    client: Client, standin: StandIn, tmp_path: Path
) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("older labels")
    standin.fail(work, *[refusal(503, "queue_full", "busy")] * 3)
    with pytest.raises(Unavailable, match="busy"):
        label(client, [item(1)] * 4, target)
    assert target.read_text() == "older labels"
    assert len((tmp_path / "out.jsonl.part").read_text().splitlines()) == 2


def test_a_bad_row_in_a_later_run_is_named_by_its_own_place(client: Client, tmp_path: Path) -> None:
    with pytest.raises(Unprocessable, match="^row 3: candidates: should be a valid list"):
        label(client, [item(1)] * 3 + [{"prompt": "p", "candidates": 3}], tmp_path / "out.jsonl")


def test_a_short_answer_is_not_taken_for_labels(client: Client, standin: StandIn, tmp_path: Path) -> None:
    standin.fail(reply({"fingerprint": {}, "usage": {}, "data": []}))
    with pytest.raises(Exception, match="the 1 items in order"):
        label(client, [item(1)], tmp_path / "out.jsonl")
