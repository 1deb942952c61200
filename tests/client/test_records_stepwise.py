"""Process and outcome labels in their public forms."""

import math
from typing import Any

import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.forms import parse_record
from tureen.records.schema import BadRecord, Record, read_steps
from tureen.records.stepwise import split_marked_steps

QUESTION = "What is 2 + 2 + 2?"
STEPS = ["Step 1: 2 + 2 = 4.", "Step 2: 4 + 2 = 7. The answer is: 7"]


def finished(item: object) -> Record:
    return parse_record(item).finish("here")[0]


def talk(*turns: str) -> list[dict[str, str]]:
    return [(user_turn, assistant_turn)[number % 2](turn) for number, turn in enumerate(turns)]


WALKED = Record(
    (user_turn(QUESTION),),
    ((assistant_turn("\n\n".join(STEPS)),),),
    (0.0,),
    source="here",
    steps=((1.0, 0.0),),
)


@pytest.mark.parametrize(
    "item",
    [
        {"prompt": QUESTION, "completions": STEPS, "labels": [True, False]},
        {"prompt": [user_turn(QUESTION)], "completions": STEPS, "labels": [1, 0.0]},
        {"conversations": talk(f"{QUESTION} {STEPS[0]}", "+", STEPS[1], "-")},
        {"conversations": talk(f"{QUESTION} {STEPS[0]}", "+", STEPS[1], "-"), "prompt": QUESTION},
        {
            "input": f"{QUESTION} {STEPS[0]} ки\n{STEPS[1]} ки",
            "label": f"{QUESTION} {STEPS[0]} +\n{STEPS[1]} -",
        },
    ],
    ids=["stepwise", "stepwise messages", "conversation", "conversation with its prompt", "math-shepherd"],
)
def test_every_form_says_the_same_of_the_same_answer(item: dict[str, Any]) -> None:
    assert finished(item) == WALKED


def test_other_columns_are_kept_beside() -> None:
    row = {"prompt": QUESTION, "completions": STEPS, "labels": [1, 0], "task": "GSM8K"}
    assert finished(row).meta == {"task": "GSM8K"}


def test_an_unjudged_step_has_no_label_and_a_soft_one_keeps_its_own() -> None:
    record = finished({"prompt": "q", "completions": ["a", "b", "c"], "labels": [0.25, None, 1]})
    assert record.steps[0][0] == 0.25
    assert math.isnan(record.steps[0][1])
    assert record.scores == (1.0,)


def test_a_blank_line_within_a_step_does_not_part_it() -> None:
    record = finished({"prompt": "q", "completions": [" a\n\n b ", "c\n"], "labels": [1, 1]})
    assert read_steps(record.answers[0]) == ["a\n b", "c"]


def test_one_turn_is_an_outcome_unless_it_is_one_step() -> None:
    whole = finished({"conversations": talk(f"{QUESTION} {STEPS[0]}\n\n{STEPS[1]}", "-")})
    assert (whole.scores, whole.steps, len(read_steps(whole.answers[0]))) == ((0.0,), (), 2)
    lone = finished({"conversations": talk(f"{QUESTION} {STEPS[0]}", "+")})
    assert (lone.scores, lone.steps) == ((1.0,), ((1.0,),))


def test_test_rows_have_many_answers_right_or_wrong_as_a_whole() -> None:
    marked = " ки\n".join([*STEPS, ""])
    record = finished({"prompt": QUESTION, "answers": [marked, "\n\n".join(STEPS), "6"], "label": [0, 0, 1]})
    assert record.prompt == (user_turn(QUESTION),)
    assert record.answers[0] == record.answers[1]
    assert (record.scores, record.steps) == ((0.0, 0.0, 1.0), ())


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a ки\nb ки", ["a", "b"]),
        ("a ки\nb\n\nc ки\n", ["a", "b\nc"]),
        ("a\n\nb\n \n\nc\n", ["a", "b", "c"]),
        ("a\n \nb\n\nc", ["a\n \nb", "c"]),
        ("one line", ["one line"]),
        ("\n\na\n\nb", ["a", "b"]),
        ("ки\na ки\nки\nb\nки", ["a", "b"]),
        ("две реки\nи море", ["две реки\nи море"]),
    ],
)
def test_steps_are_parted_by_their_mark_or_by_blank_lines(text: str, steps: list[str]) -> None:
    assert split_marked_steps(text) == steps


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"prompt": "q", "completions": ["a"], "labels": [1, 0]}, "1 steps and 2 labels"),
        ({"prompt": "q", "completions": ["a", " "], "labels": [1, 0]}, "a blank one"),
        ({"prompt": "q", "completions": [], "labels": []}, "there is no step"),
        ({"prompt": "q", "completions": [3], "labels": [1]}, r"`completions\[0\]` must be a string"),
        ({"prompt": "q", "completions": ["a"], "labels": [2]}, r"`labels\[0\]` must be 0 \(wrong\) to 1"),
        ({"prompt": "q", "completions": ["a"], "labels": ["+"]}, r"`labels\[0\]` must be a number or null"),
        ({"prompt": "q", "answers": ["a"], "label": []}, "`answers` has 1 items and `label` 0"),
        ({"conversations": []}, "must alternate user and assistant"),
        ({"conversations": talk("q Step 1: a", "+", "b")}, "must alternate user and assistant"),
        ({"conversations": talk("q Step 1: a", "yes")}, r"`conversations\[1\]` must be \+ or -, is 'yes'"),
        ({"conversations": talk("why? because.", "+")}, "where the question ends is not seen"),
        ({"conversations": talk("why? because.", "+"), "prompt": "how?"}, "must begin with `prompt`"),
        ({"input": "q Step 1: a ки", "label": "q Step 1: b +"}, "in the place of each ки"),
        ({"input": "q Step 1: a ки\nb", "label": "q Step 1: a +\nb"}, "in the place of each ки"),
    ],
)
def test_what_cannot_be_used_is_named(item: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRecord, match=words):
        finished(item)
