"""Pairs to judge, and records with a judge's labels. Pure."""

from collections import Counter
from typing import Any

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import UNLABELLED, Record
from tureen_train.judge.comparisons import Judgement
from tureen_train.judge.pairs import TOOLS, label_pairs, make_unlabelled_pairs

PROMPT = (user_turn("why?"),)


def record(*texts: str, **keys: Any) -> Record:
    scores = keys.pop("scores", (UNLABELLED,) * len(texts))
    return Record(PROMPT, tuple((assistant_turn(text),) for text in texts), scores, **keys)


def test_all_answers_to_a_prompt_are_paired_and_what_a_judge_cannot_read_is_counted() -> None:
    whole = Record((), ((user_turn("a"), assistant_turn("b")), (user_turn("c"), assistant_turn("d"))), (1, 0))
    tools = record("a", "b", tools=({"type": "function", "function": {"name": "f"}},))
    records = [record("a", "b", "c"), record("alone"), whole, tools]
    pairs = make_unlabelled_pairs(records)
    assert [(each.first, each.second) for each in pairs.comparisons] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert sorted(pairs.left_out.values()) == [1, 1, 1]
    assert TOOLS not in make_unlabelled_pairs(records, with_tools=True).left_out


def test_a_verdict_orders_the_answers_and_a_failure_is_left_out() -> None:
    pairs = make_unlabelled_pairs([record("a", "b", scores=(1, 0)) for _ in range(4)])
    made = label_pairs(pairs, [Judgement(1.0), Judgement(0.25), Judgement(0.5), Judgement(None, "no verdict")])
    assert [each.scores for each in made.records] == [(1.0, 0.0), (0.25, 0.75), (0.5, 0.5)]
    assert [each.scores for each in made.ordered] == [(1.0, 0.0), (0.75, 0.25), (0.5, 0.5)]
    assert [each.answers[0][0]["content"] for each in made.ordered] == ["a", "b", "a"]
    assert [each.meta.get("turned") for each in made.ordered] == [None, True, None]
    assert (made.left_out, made.turned) == (Counter({"no verdict": 1}), 1)
