"""Splitting and merging, as arithmetic on lists."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen import (
    Chunks,
    Conflict,
    InvalidRequest,
    Label,
    PreferencesReply,
    RankingLabel,
    ScoreItem,
    ScoreReply,
    ServerFault,
    TrlLabel,
    Unavailable,
    Unprocessable,
)
from tureen.calls.chunks import build_chunk, check_items, check_rows, merge_replies, set_row_types, shift_row
from tureen.http_requests import encode_json
from tureen.item_positions import find_item_index, shift_error, shift_index
from tureen.wire import CandidateScore, ErrorDetail, ItemScore, ScoreRequest, Usage

texts = st.lists(st.text(max_size=40), min_size=1, max_size=60)
PAIR = {"prompt": "Why?", "candidates": ["Because."]}


@given(items=texts, most=st.integers(1, 10), size=st.integers(1, 200))
def test_runs_hold_everything_in_order_and_fit(items: list[str], most: int, size: int) -> None:
    runs = list(Chunks(most, size).split(items))
    assert [item for _, run in runs for item in run] == items
    assert [start for start, _ in runs] == [sum(len(run) for _, run in runs[:place]) for place in range(len(runs))]
    for _, run in runs:
        assert 1 <= len(run) <= most
        assert len(run) == 1 or sum(len(encode_json(item)) for item in run) <= size


@given(items=texts, most=st.integers(1, 10), size=st.integers(1, 200))
def test_no_run_could_have_taken_the_next_item(items: list[str], most: int, size: int) -> None:
    runs = [run for _, run in Chunks(most, size).split(items)]
    for run, following in zip(runs, runs[1:], strict=False):
        assert len(run) == most or sum(len(encode_json(item)) for item in [*run, following[0]]) > size


@pytest.mark.parametrize(("items", "size"), [(0, 1), (4097, 1), (1, 0)])
def test_a_request_that_could_hold_nothing_is_refused(items: int, size: int) -> None:
    with pytest.raises(InvalidRequest, match="1 to 4096 items"):
        Chunks(items, size)


NO_ITEMS: list[object] = [[], "text", PAIR, None, 3]


def test_items_are_checked_unless_bad_ones_are_spared() -> None:
    bad = {"prompt": "Why?"}
    assert check_items([PAIR], {}) == [ScoreItem.model_validate(PAIR)]
    assert check_items((item for item in [PAIR, bad]), {"on_error": "item"}) == [PAIR, bad]
    with pytest.raises(Unprocessable) as caught:
        check_items([PAIR, bad], {"on_error": "fail"})
    assert caught.value.param == "items[1]"
    for options in ({}, {"on_error": "item"}):
        for items in NO_ITEMS:
            with pytest.raises(Unprocessable) as caught:
                check_items(items, options)
            assert caught.value.param == "items"


def test_bad_items_that_are_spared_are_sent_as_they_are() -> None:
    items = [ScoreItem.model_validate(PAIR), {"prompt": "\ud800", "candidates": 3}]
    body = json.loads(build_chunk(ScoreRequest, {"items": items, "on_error": "item", "truncate": True}))
    assert body == {"items": [PAIR, {"prompt": "\ud800", "candidates": 3}], "on_error": "item", "truncate": True}


def test_a_bad_option_is_never_spared() -> None:
    with pytest.raises(Unprocessable) as caught:
        build_chunk(ScoreRequest, {"items": [PAIR], "on_error": "item", "truncate": "perhaps"})
    assert caught.value.param == "truncate"


def reply(rows: int, tokens: int = 0, **changes: Any) -> ScoreReply:
    data = [ItemScore(index=index, candidates=[]) for index in range(rows)]
    usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
    return ScoreReply(**{"fingerprint": {"a": "f"}, "data": data, "usage": usage, **changes})


@given(counts=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 1000)), min_size=1, max_size=8))
def test_merged_rows_are_numbered_through_and_usage_summed(counts: list[tuple[int, int]]) -> None:
    merged = merge_replies([reply(rows, tokens) for rows, tokens in counts])
    assert [row.index for row in merged.data] == list(range(sum(rows for rows, _ in counts)))
    assert merged.usage.prompt_tokens == merged.usage.total_tokens == sum(tokens for _, tokens in counts)


def test_counts_of_a_newer_server_are_summed_too() -> None:
    usage = Usage.model_validate({"cached_tokens": 3, "details": {"x": 1}})
    assert merge_replies([reply(1, usage=usage), reply(1, usage=usage)]).usage.model_extra == {"cached_tokens": 6}


def test_one_reply_is_merged_into_itself() -> None:
    assert merge_replies([reply(3, 7)]) == reply(3, 7)


def test_replies_of_two_models_do_not_merge() -> None:
    with pytest.raises(Conflict, match="call again"):
        merge_replies([reply(1), reply(1, fingerprint={"a": "g"})])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_reply_must_hold_every_item(count: int) -> None:
    assert check_rows(reply(2), 2) == reply(2)
    with pytest.raises(ServerFault, match=f"the {count} items"):
        check_rows(reply(2), count)


def test_errors_in_rows_point_into_the_whole_input() -> None:
    error = ErrorDetail(message="too long", type="t", param="items[1].candidates[0]")
    row = ItemScore(index=1, candidates=[CandidateScore(index=0, error=error)], error=error)
    got = shift_row(row, 10)
    assert isinstance(got, ItemScore)
    assert (got.index, got.candidates[0].index) == (11, 0)
    assert got.error is not None
    assert got.error.param == "items[11].candidates[0]"
    assert got.candidates[0].error == got.error
    assert row.error is error


def test_an_error_is_moved_with_everything_it_knows() -> None:
    error = Unavailable("items[2] is late", param="items[2]", code="late", retry_after=3.0, request_id="r")
    got = shift_error(error, 5)
    assert type(got) is Unavailable
    assert (str(got), got.param, got.code) == ("items[7] is late", "items[7]", "late")
    assert (got.retry_after, got.request_id) == (3.0, "r")


@given(index=st.integers(0, 10**6), offset=st.integers(0, 10**6))
def test_shifting_adds_to_the_items_index(index: int, offset: int) -> None:
    assert find_item_index(shift_index(f"items[{index}].candidates[1]", offset)) == index + offset


@pytest.mark.parametrize("field", [None, "", "preferences.humor", "rewards[3]", "other.items[3]"])
def test_fields_outside_of_items_stay(field: str | None) -> None:
    assert shift_index(field, 5) == field
    assert find_item_index(field) is None


@pytest.mark.parametrize(
    ("form", "kind", "row"),
    [
        ("full", Label, {"ranking": [0, 1], "chosen": 0, "rejected": 1}),
        ("trl", TrlLabel, {"chosen": [{"role": "assistant", "content": "a"}], "tie": False}),
        ("trl", TrlLabel, {"error": {"message": "m", "type": "t"}}),
        ("ranking", RankingLabel, {"ranking": [0, 1]}),
        ("ranking", RankingLabel, {"error": {"message": "m", "type": "t"}}),
    ],
)
def test_rows_are_typed_by_the_format_that_was_asked_for(form: str, kind: type[Any], row: dict[str, Any]) -> None:
    got = PreferencesReply.model_validate({"fingerprint": {}, "usage": {}, "data": [{"index": 0, **row}]})
    [label] = set_row_types(got, form).data
    assert type(label) is kind
    assert label == kind(index=0, **row)


@pytest.mark.parametrize("field", ["candidates", "steps"])
def test_a_request_has_no_more_texts_than_the_server_takes(field: str) -> None:
    large: dict[str, Any] = {"prompt": "p", field: ["x"] * 200}
    items = [ScoreItem(**large) if index % 2 else large for index in range(100)]
    parts = list(Chunks(items=256).split(items))
    assert [len(part) for _, part in parts] == [81, 19]
    assert [len(part) for _, part in Chunks(items=256).split([{"prompt": "p"}] * 300)] == [256, 44]
