"""Two answers in columns of their own: the verdict's range, the scores' spellings, and ranks."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tureen.records.forms import parse_record
from tureen.records.reading import Reading
from tureen.records.schema import BadRecord

PAIR = {"prompt": "q", "response_a": "x", "response_b": "y"}
NUMBERED = {"prompt": "q", "response1": "x", "response2": "y"}


def scores(item: dict[str, Any]) -> tuple[float, ...]:
    return parse_record(item).finish("here")[0].scores


@pytest.mark.parametrize("name", ["overall_preference", "preference_strength"])
@pytest.mark.parametrize(
    ("strength", "wanted"),
    [(-3, (3.0, 0.0)), (-1, (1.0, 0.0)), (0, (0.0, 0.0)), (0.0, (0.0, 0.0)), (2, (0.0, 2.0)), ("3", (0.0, 3.0))],
)
def test_a_strength_is_a_score_of_the_better_answer(name: str, strength: Any, wanted: tuple[float, float]) -> None:
    found = scores({**NUMBERED, name: strength})
    assert found == wanted
    assert "-0" not in str(found)


@pytest.mark.parametrize("name", ["overall_preference", "preference_strength"])
@pytest.mark.parametrize("strength", [-7, -100, 4, 3.5])
def test_a_strength_out_of_range_is_refused_with_its_place(name: str, strength: float, tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({**NUMBERED, name: 1}) + "\n" + json.dumps({**NUMBERED, name: strength}) + "\n")
    reading = Reading(path)
    assert len(list(reading)) == 1
    words = "must be -3 (the first answer is much better) to 3 (the second)"
    assert reading.report.examples == {"bad score": [f"{path}:2: bad score: `{name}` {words}, is {strength:g}"]}


def test_a_strength_that_says_nothing_is_unlabelled() -> None:
    assert all(math.isnan(score) for score in scores({**NUMBERED, "overall_preference": "n/a"}))


@pytest.mark.parametrize(
    ("marks", "wanted"), [((1, 0), (1.0, 0.0)), ((False, True), (0.0, 1.0)), (("0", "0"), (0.5, 0.5))]
)
def test_marks_of_the_winner(marks: tuple[Any, Any], wanted: tuple[float, float]) -> None:
    assert scores({**PAIR, "winner_model_a": marks[0], "winner_model_b": marks[1], "winner_tie": 0}) == wanted


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ((1, 1), "`winner_model_a` and `winner_model_b` are both 1"),
        ((2, 0), "`winner_model_a` must be 0 or 1, is '2'"),
        ((0, "vicuna"), "`winner_model_b` must be a number or null, is 'vicuna'"),
    ],
)
def test_other_marks_are_refused(marks: tuple[Any, Any], words: str) -> None:
    with pytest.raises(BadRecord, match=words):
        parse_record({**PAIR, "winner_model_a": marks[0], "winner_model_b": marks[1]})


@pytest.mark.parametrize(
    "names", [("score_a", "score_b"), ("rating_a", "rating_b"), ("response_a_score", "response_b_score")]
)
def test_scores_of_both_are_read(names: tuple[str, str]) -> None:
    draft = parse_record({**PAIR, names[0]: 1, names[1]: "2.5"}, strict=True)
    assert draft.scores == (1.0, 2.5)
    assert draft.columns == {}


def test_one_score_alone_neither_counts_nor_hides_the_verdict() -> None:
    draft = parse_record({**PAIR, "score_a": 5, "winner": "b"})
    assert draft.scores == (0.0, 1.0)
    assert draft.columns == {"score_a": "not understood, kept beside the record"}


def test_a_rank_counts_downwards_and_is_not_negative() -> None:
    assert scores({**PAIR, "rank_a": 2, "rank_b": 1}) == (-2.0, -1.0)
    assert str(scores({**PAIR, "rank_a": 0, "rank_b": 1})) == "(0.0, -1.0)"
    with pytest.raises(BadRecord, match="`rank_b` must be a rank, where 1 is the best, is -1"):
        parse_record({**PAIR, "rank_a": 2, "rank_b": -1})


@pytest.mark.parametrize(
    "item",
    [
        {"prompt": "q", "answers": [{"text": "x", "rank": 1}, {"text": "y", "rank": -1}]},
        {"prompt": "q", "answers": ["x", "y"], "ranks": [1, -1]},
    ],
)
def test_a_negative_rank_in_a_list_is_refused(item: dict[str, Any]) -> None:
    with pytest.raises(BadRecord, match=r"must be a rank, where 1 is the best, is -1"):
        parse_record(item)
