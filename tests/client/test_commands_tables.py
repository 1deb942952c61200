"""Replies as tables, read back as the lines that a terminal shows."""

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tureen import Batch, ChatReply, ModelList, ScoreItem, ScoreReply
from tureen.commands import tables
from tureen.wire import CandidateScore


def lines(table: Table) -> list[list[str]]:
    """The cells of each line of a wide terminal."""
    console = Console(width=400, file=io.StringIO())
    with console.capture() as capture:
        console.print(table)
    shown = capture.get().replace("┃", "│").splitlines()
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown if "│" in line]


def candidate(index: int, reward: float | None = None, **scores: tuple[float, float]) -> dict[str, Any]:
    told = {name: {"raw": raw, "calibrated": calibrated} for name, (raw, calibrated) in scores.items()}
    return {"index": index, "scores": told, "reward": reward, "tokens": 7}


def scored(*rows: dict[str, Any]) -> ScoreReply:
    return ScoreReply.model_validate({"fingerprint": {}, "usage": {}, "data": list(rows)})


def test_a_score_without_a_calibration_is_shown_raw() -> None:
    raw = {"index": 0, "scores": {"bare": {"raw": 1.234, "calibrated": None}, "a": {"raw": 2, "calibrated": 1}}}
    found = CandidateScore.model_validate(raw)
    assert tables.format_rewards(found).plain == "bare (1.23)\na    +1.00 (2.00)"


def test_scores_show_both_scales_the_weighted_reward_and_the_answer() -> None:
    items = [ScoreItem(prompt="p", candidates=["first", "second"])]
    candidates = [candidate(0, 0.5, a=(1.234, -0.5), longer=(2, 1)), candidate(1, None, a=(0, 0))]
    assert lines(tables.tabulate_scores(items, scored({"index": 0, "candidates": candidates}))) == [
        ["item", "answer", "rewards", "reward", "tokens"],
        ["0", "first", "a      -0.50 (1.23)", "+0.500", "7"],
        ["", "", "longer +1.00 (2.00)", "", ""],
        ["0", "second", "a +0.00 (0.00)", "", "7"],
    ]


def test_what_failed_shows_why() -> None:
    error = {"message": "too [long]", "type": "t", "code": "too_long"}
    items = [ScoreItem(prompt="p", candidates=["first"])] * 2
    reply = scored(
        {"index": 0, "candidates": [{"index": 0, "error": error}]}, {"index": 1, "candidates": [], "error": error}
    )
    assert lines(tables.tabulate_scores(items, reply))[1:] == [
        ["0", "too_long: too [long]", "", "", "0"],
        ["1", "too_long: too [long]", "", "", ""],
    ]


def test_a_sweep_shows_weights_texts_and_rewards() -> None:
    choices = [
        {"message": {"content": text}, "preferences": {"a": weight, "b": 1 - weight}}
        for text, weight in (("one", 1.0), ("two", 0.25))
    ]
    reply = ChatReply.model_validate({"choices": choices})
    scores = scored({"index": 0, "candidates": [candidate(0, h=(1, 2)), candidate(1, h=(3, 4))]})
    assert lines(tables.tabulate_sweep(reply, None)) == [
        ["preferences", "text"],
        ["a=1", "one"],
        ["b=0", ""],
        ["a=0.25", "two"],
        ["b=0.75", ""],
    ]
    assert lines(tables.tabulate_sweep(reply, scores))[1::2] == [
        ["a=1", "one", "h +2.00 (1.00)"],
        ["a=0.25", "two", "h +4.00 (3.00)"],
    ]


def test_a_sweep_whose_texts_could_not_be_scored_is_still_shown() -> None:
    reply = ChatReply.model_validate({"choices": [{"message": {"content": "one"}}]})
    scores = scored({"index": 0, "candidates": [], "error": {"message": "m", "type": "t"}})
    assert lines(tables.tabulate_sweep(reply, scores)) == [["preferences", "text", "rewards"], ["", "one", ""]]


def test_models_show_what_each_is_for() -> None:
    cards = [
        {
            "id": "helpful",
            "kind": "reward",
            "objectives": ["helpful"],
            "version": "0123456789abcdef",
            "max_length": 99,
            "calibrated": True,
        },
        {"id": "bare", "kind": "reward", "objectives": ["bare"], "calibrated": False},
        {"id": "smol", "kind": "policy", "objectives": ["a", "b"], "steering": ["soup"]},
    ]
    assert lines(tables.tabulate_models(ModelList.model_validate({"data": cards})))[1:] == [
        ["helpful", "reward", "helpful", "yes", "", "99", "0123456789ab"],
        ["bare", "reward", "bare", "no", "", "", ""],
        ["smol", "policy", "a, b", "", "soup", "", ""],
    ]


def test_models_that_are_not_loaded_are_marked() -> None:
    cards = [{"id": "here", "kind": "reward"}, {"id": "there", "kind": "reward", "loaded": False}]
    found = lines(tables.tabulate_models(ModelList.model_validate({"data": cards})))
    assert [(row[0], row[-1]) for row in found] == [("model", "loaded"), ("here", "yes"), ("there", "no")]


def batch(status: str, completed: int, failed: int) -> Batch:
    counts = {"total": 29, "completed": completed, "failed": failed}
    told = {"id": f"batch_{'0' * 32}", "endpoint": "/v1/chat/completions", "input_file_id": "f", "created_at": 1}
    return Batch.model_validate({**told, "completion_window": "24h", "status": status, "request_counts": counts})


def test_batches_that_were_broken_off_show_what_was_done() -> None:
    found = [batch("in_progress", 3, 1), batch("cancelled", 3, 26), batch("expired", 29, 0)]
    rows = lines(tables.tabulate_batches(found, 400))
    assert rows[0] == ["batch", "status", "endpoint", "done", "failed", "created"]
    assert [row[3:5] for row in rows[1:]] == [["4 of 29", "1"], ["3 of 29", "26 or not run"], ["29 of 29", "0"]]


@pytest.mark.parametrize(
    ("width", "left"),
    [
        (130, ["batch", "status", "endpoint", "done", "failed", "created"]),
        (100, ["batch", "status", "done", "failed", "created"]),
        (80, ["batch", "status", "done", "failed"]),
        (72, ["batch", "status", "done"]),
        (53, ["batch", "status"]),
        (44, ["batch", "status"]),
    ],
)
def test_a_batchs_id_is_whole_however_narrow_the_terminal(width: int, left: list[str]) -> None:
    table = tables.tabulate_batches([batch("in_progress", 3, 26)], width)
    assert [column.header for column in table.columns] == left
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(table)
    assert f"batch_{'0' * 32}" in capture.get()
    assert max(map(len, capture.get().splitlines())) <= width


def test_no_batches_are_a_table_too() -> None:
    assert lines(tables.tabulate_batches([], 80)) == [["batch", "status", "endpoint", "done", "failed", "created"]]


def test_items_are_called_by_their_ids() -> None:
    items = [ScoreItem(prompt="p", candidates=["first"])] * 2
    rows = [{"index": index, "candidates": [candidate(0, 0.5, a=(1, 1))]} for index in range(2)]
    assert [row[0] for row in lines(tables.tabulate_scores(items, scored(*rows), ["mine", None]))] == [
        "item",
        "mine",
        "1",
    ]


@pytest.mark.parametrize(
    ("item", "texts"),
    [
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, ["a"]),
        ({"prompt": "q", "candidates": ["a", [{"role": "assistant", "content": "b"}]]}, ["a", "b"]),
        ({"prompt": "q", "steps": ["1", "2"]}, ["1", "2"]),
    ],
)
def test_the_text_of_an_item_is_what_is_scored(item: dict[str, Any], texts: list[str]) -> None:
    assert tables.list_texts(ScoreItem.model_validate(item)) == texts


def test_long_texts_are_shortened_to_one_line() -> None:
    assert tables.shorten_text("a\n  b").plain == "a b"
    assert tables.shorten_text("x" * 240).plain == "x" * 240
    assert tables.shorten_text("x" * 241).plain == "x" * 239 + "…"
