"""Answers of methods joined by their prompts. Pure."""

from collections.abc import Sequence

import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import UNLABELLED, BadOption, Record
from tureen_train.judge.comparisons import write_answer
from tureen_train.judge.methods import MethodAnswers, join_methods


def answered(*pairs: tuple[str, str | tuple[str, ...]]) -> list[Record]:
    found = []
    for prompt, texts in pairs:
        answers = tuple((assistant_turn(text),) for text in ([texts] if isinstance(texts, str) else texts))
        found.append(Record((user_turn(prompt),), answers, (UNLABELLED,) * len(answers)))
    return found


def texts_of(joined: MethodAnswers) -> list[Sequence[str]]:
    return [tuple(map(write_answer, record.answers)) for record in joined.prompts]


def test_answers_are_joined_by_their_prompts_and_not_by_their_place() -> None:
    """RLPHF paired the rows of two files by their place."""
    joined = join_methods(
        {"one": answered(("p", "p1"), ("q", "q1"), ("r", "r1")), "two": answered(("q", "q2"), ("p", "p2"))}
    )
    assert texts_of(joined) == [("p1", "p2"), ("q1", "q2")]
    assert dict(joined.left_out) == {"answers of one to prompts that another method did not answer": 1}


def test_repeated_prompts_and_several_answers_are_joined_by_their_number() -> None:
    joined = join_methods(
        {"one": answered(("p", ("1", "2"))), "two": answered(("p", "3"), ("q", "4"), ("p", "5"), ("p", "6"))}
    )
    assert texts_of(joined) == [("1", "3"), ("2", "5")]
    assert sum(joined.left_out.values()) == 2


def test_each_two_of_three_methods_are_paired() -> None:
    joined = join_methods({name: answered(("p", name), ("q", name * 2)) for name in "abc"})
    found = [
        (one, other, [tuple(map(write_answer, each.answers)) for each in own])
        for one, other, own in joined.pair_methods()
    ]
    assert found == [
        (0, 1, [("a", "b"), ("aa", "bb")]),
        (0, 2, [("a", "c"), ("aa", "cc")]),
        (1, 2, [("b", "c"), ("bb", "cc")]),
    ]


def test_what_cannot_be_joined_is_refused() -> None:
    with pytest.raises(BadOption, match="two methods or more"):
        join_methods({"one": answered(("p", "a"))})
    with pytest.raises(BadOption, match="no prompt was answered by all methods"):
        join_methods({"one": answered(("p", "a")), "two": answered(("q", "a"))})
    whole = Record((), ((user_turn("p"), assistant_turn("a")),), (UNLABELLED,))
    joined = join_methods({"one": [whole, *answered(("p", "a"))], "two": answered(("p", "b"))})
    assert joined.left_out == {"records of one without a prompt": 1}
