"""Rows become items of one prompt with all its answers, and the answers rows again in their order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen.adapters.grouped_rows import GroupedRows, group_by_prompt, make_failed_row
from tureen.errors import InvalidRequest, Unavailable, Unprocessable
from tureen.wire import CandidateScore, ErrorDetail, ItemScore, Score, ScoreReply, Usage

BROKEN = ErrorDetail(message="broken", type="server_error")


def answer(batch: GroupedRows) -> ScoreReply:
    """Scores that tell which prompt and answer they are of."""
    return ScoreReply(
        fingerprint={}, data=[scored(index, item) for index, item in enumerate(batch.items)], usage=Usage()
    )


def scored(index: int, item: dict[str, Any]) -> ItemScore:
    told = [f"{item['prompt']}/{candidate}" for candidate in item["candidates"]]
    score = Score(raw=1.0, calibrated=1.0)
    return ItemScore(index=index, candidates=[CandidateScore(index=0, scores={text: score}) for text in told])


def names(rows: list[CandidateScore]) -> list[str | None]:
    return [next(iter(row.scores)) if row.scores else None for row in rows]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=3)), max_size=30))
def test_every_row_gets_its_own_score_back(rows: list[tuple[str, str]]) -> None:
    prompts, answers = [row[0] for row in rows], [row[1] for row in rows]
    batch = group_by_prompt(prompts, answers)
    assert len(batch.items) == len(set(prompts))
    assert names(batch.read_reply(answer(batch))) == [f"{prompt}/{text}" for prompt, text in rows]


def test_a_prompt_with_more_answers_than_an_item_takes_gets_several_items() -> None:
    texts = [str(number) for number in range(600)]
    batch = group_by_prompt(["Why?"] * 600, texts)
    assert [len(item["candidates"]) for item in batch.items] == [256, 256, 88]
    assert names(batch.read_reply(answer(batch))) == [f"Why?/{text}" for text in texts]


def test_prompts_are_equal_if_they_say_the_same() -> None:
    said = {"role": "user", "content": "Why?"}
    parts = {"content": [{"type": "text", "text": "Why?"}], "role": "user", "tool_calls": None}
    assert len(group_by_prompt([[said], [parts], (said,)], ["a", "b", "c"]).items) == 1
    assert len(group_by_prompt([[said], "Why?", [said, said]], ["a", "b", "c"]).items) == 3


@pytest.mark.parametrize(
    ("prompt", "text", "param"),
    [
        (3, "a", "prompt"),
        ("Why?", 3, "candidates[0]"),
        ("Why?", "\ud800", "candidates[0]"),
        ([{"role": "nobody", "content": "Why?"}], "a", "prompt[0].role"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "a", "prompt[0].content[0]"),
        (
            "Why?",
            [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}],
            "candidates[0][0].tool_calls[0].name",
        ),
        ("Why?", [{"role": "assistant", "content": None}], "candidates[0][0].content"),
    ],
)
def test_a_row_that_cannot_be_sent_fails_by_itself(prompt: Any, text: Any, param: str) -> None:
    batch = group_by_prompt(["Why?", prompt, "Why?"], ["a", text, "b"])
    assert [item["candidates"] for item in batch.items] == [["a", "b"]]
    first, bad, last = batch.read_reply(answer(batch))
    assert (first.error, last.error) == (None, None)
    assert bad.error is not None
    assert bad.error.param == param
    assert (bad.scores, bad.reward) == (None, None)


def test_rows_that_are_all_bad_need_no_answer() -> None:
    [row] = group_by_prompt([None], ["a"]).read_reply(None)
    assert row.error is not None


def test_an_item_that_failed_fails_all_its_rows() -> None:
    batch = group_by_prompt(["a", "b", "a"], ["1", "2", "3"])
    reply = answer(batch)
    reply.data[0] = ItemScore(index=0, candidates=[], error=BROKEN)
    assert [row.error for row in batch.read_reply(reply)] == [BROKEN, None, BROKEN]


def test_a_candidate_that_the_answer_lacks_is_an_error() -> None:
    batch = group_by_prompt(["a", "a"], ["1", "2"])
    reply = answer(batch)
    del reply.data[0].candidates[1]
    first, second = batch.read_reply(reply)
    assert first.error is None
    assert second.error is not None
    assert second.error.code == "unreadable_reply"


def test_a_lost_call_fails_every_row_with_its_error() -> None:
    rows = group_by_prompt(["a", "b"], ["1", "2"]).fail_rows(Unavailable("gone", code="engine_dead"))
    assert [(row.error and row.error.code, row.scores) for row in rows] == [("engine_dead", None)] * 2


def test_as_many_answers_as_prompts_are_needed() -> None:
    with pytest.raises(InvalidRequest, match="2 prompts and 1 answers: give each answer with the prompt"):
        group_by_prompt(["a", "b"], iter(["1"]))


def test_a_failed_row_has_no_reward() -> None:
    row = make_failed_row(ErrorDetail(message="bad", type=Unprocessable.type))
    assert (row.scores, row.reward) == (None, None)
