"""What a judge is asked and how it is read: pure."""

from collections import Counter

import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen_train.config import RecipeError
from tureen_train.policies.rollouts.comparison_prompts import (
    Comparison,
    digest_request,
    find_criterion,
    list_criteria,
    parse_verdict,
    starts_turned,
    write_messages,
)

PAIR = Comparison((user_turn("why {leaves} fall?"),), "because {0}", "no idea")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("It is shorter.\n\nVerdict: A", "A"),
        ("verdict: b", "B"),
        ("**Verdict:** Tie.", "tie"),
        ("Verdict: [[B]]\n", "B"),
        ("Verdict: Answer A", "A"),
        ("Verdict: A\nOn reflection:\nVerdict: B", "B"),
        ("", None),
        ("A is better.", None),
        ("Verdict: A or B", None),
        ("Verdict: C", None),
        ("My verdict: A", None),
        ("Verdict: A is better", None),
    ],
)
def test_only_a_line_of_the_agreed_form_is_a_verdict(text: str, verdict: str | None) -> None:
    assert parse_verdict(text) == verdict


def test_criteria_are_packaged_or_given_as_a_sentence() -> None:
    poles = [f"pref{number}{letter}" for number in "123" for letter in "AB"]
    assert set(list_criteria()) == {*poles, "pref3C", "pref3D", "helpfulness"}
    assert find_criterion("pref2A") == list_criteria()["pref2A"]
    assert find_criterion(" Which rhymes better? ") == "Which rhymes better?"
    with pytest.raises(RecipeError, match="'pref4A' is none of pref1A, .*; name one, or write a sentence"):
        find_criterion("pref4A")


def test_a_judge_reads_criterion_request_and_both_answers_in_order() -> None:
    system, user = write_messages("Which is kinder?", PAIR)
    assert system["role"] == "system"
    text = user["content"]
    places = [text.index(each) for each in ("Which is kinder?", "why {leaves} fall?", "because {0}", "no idea")]
    assert places == sorted(places)
    (_, turned) = write_messages("Which is kinder?", PAIR.turned)
    assert turned["content"].index("no idea") < turned["content"].index("because {0}")
    talk = Comparison((user_turn("hi"), assistant_turn("yes?"), user_turn("why?")), "a", "b")
    assert "[user]\nhi\n\n[assistant]\nyes?\n\n[user]\nwhy?" in write_messages("x y", talk)[1]["content"]


def test_a_request_is_known_again_by_all_that_its_verdict_depends_on() -> None:
    messages = write_messages("Which is kinder?", PAIR)
    others = [
        digest_request("m", messages, {}),
        digest_request("n", messages, {}),
        digest_request("m", messages, {"temperature": 0.0}),
        digest_request("m", write_messages("Which is meaner?", PAIR), {}),
        digest_request("m", write_messages("Which is kinder?", PAIR.turned), {}),
        digest_request("m", write_messages("Which is kinder?", Comparison((user_turn("?"),), "a", "b")), {}),
    ]
    assert len(set(others)) == len(others)
    assert digest_request("m", list(messages), {}) == others[0]


def test_the_order_of_a_single_question_depends_on_the_texts_alone_and_is_even() -> None:
    pairs = [Comparison(PAIR.prompt, f"answer {number}", "another") for number in range(400)]
    for pair in pairs:
        first = pair.second if starts_turned(pair) else pair.first
        other = pair.turned
        assert first == (other.second if starts_turned(other) else other.first)
    turned = Counter(map(starts_turned, pairs))
    assert 150 < turned[True] < 250
