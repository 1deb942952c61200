"""What a judge is asked and how its verdicts are read: pure."""

import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen_train.judge.comparisons import Comparison
from tureen_train.judge.configuration import Choice, JudgeConfiguration, read_configuration
from tureen_train.judge.prompts import digest_question, parse_verdicts, write_messages

PAIR = Comparison((user_turn("why {first} fall?"),), "because {second} {0}", "no idea")
REASONS = read_configuration("evaluate/pref2A")
LINES = read_configuration("annotate/pref2A")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("It is shorter.\n\nOutput (a)", "A"),
        ("Why not.\noutput (b).\n\n", "B"),
        ("**TIE**", "tie"),
        ("> [[Output  (b)]]", "B"),
        ("Verdict: Output A", "A"),
        ("My final answer: Output (b)", "B"),
        ("Output (a)\nOn reflection:\nOutput (b)", "B"),
        ("", None),
        ("Output (a) is better.", None),
        ("Output (a) or Output (b)", None),
        ("Output (a)\n\nI hope this helps.", None),
        ("About Output (a): short.\n\nOutput (b):", None),
        ("Output (c)", None),
        ("Not better: Output (a)", None),
        ("tie-break", None),
    ],
)
def test_with_reasons_only_a_last_line_of_the_agreed_form_is_a_verdict(text: str, verdict: Choice | None) -> None:
    assert parse_verdicts(REASONS, text, 1) == (None if verdict is None else [verdict])


def test_reasons_that_were_cut_hold_no_verdict() -> None:
    """The last line that was written may be a heading over one of the outputs."""
    assert parse_verdicts(REASONS, "Output (a)", 1) == ["A"]
    assert parse_verdicts(REASONS, "Output (a)", 1, cut=True) is None
    assert parse_verdicts(LINES, "1. Output (a)", 1, cut=True) == ["A"]


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("1. Output (a)\n2. Output (b)\n3. Output (a)", ["A", "B", "A"]),
        ("Output (a)\n Output (b)\nOutput (b)\n", ["A", "B", "B"]),
        ("Here you are:\n\nExample 1: **Output (b)**\nExample 2: Output (a)\nExample 3) output a", ["B", "A", "A"]),
        ("3. Output (a)\n1. Output (b)\n2. Output (b)", ["B", "B", "A"]),
        ("1. Output (a)\n2. Output (b)", None),
        ("1. Output (a)\n2. Output (b)\n3. Output (a)\n4. Output (a)", None),
        ("1. Output (a)\n2. Output (b)\n2. Output (a)", None),
        ("1. Output (a)\n2. Output (b)\nOutput (a)", None),
        ("2. Output (a)\n3. Output (b)\n4. Output (a)", None),
        ("1. Output (a)\n2. Output (b)\n3. TIE", None),
        ("", None),
    ],
)
def test_a_batch_has_as_many_verdicts_as_pairs_or_none(text: str, verdicts: list[Choice] | None) -> None:
    assert parse_verdicts(LINES, text, 3) == verdicts


def test_a_judge_reads_criterion_request_and_both_answers_in_order_and_braces_stay() -> None:
    asked = write_messages(REASONS, [PAIR])
    assert [turn["role"] for turn in asked] == ["system", *["user", "assistant"] * 3, "user"]
    assert REASONS.criterion in asked[0]["content"]
    text = asked[-1]["content"]
    places = [text.index(each) for each in ("why {first} fall?", "because {second} {0}", "no idea")]
    assert places == sorted(places)
    turned = write_messages(REASONS, [PAIR.turned])[-1]["content"]
    assert turned.index("no idea") < turned.index("because {second} {0}")
    talk = Comparison((user_turn("hi"), assistant_turn("yes?"), user_turn("why?")), "a", "b")
    assert "[user]\nhi\n\n[assistant]\nyes?\n\n[user]\nwhy?" in write_messages(REASONS, [talk])[-1]["content"]


def test_the_demonstrations_are_replies_that_are_read_as_their_verdicts() -> None:
    for configuration in (REASONS, LINES):
        replies = [turn["content"] for turn in write_messages(configuration, [PAIR]) if turn["role"] == "assistant"]
        size = 1 if configuration.reasons else 2
        read = [verdict for reply in replies for verdict in parse_verdicts(configuration, reply, size) or []]
        assert read == [each.verdict for each in configuration.demonstrations if each.verdict in configuration.labels]


def test_a_batch_numbers_its_pairs_and_says_how_many_there_are() -> None:
    text = write_messages(LINES, [PAIR, PAIR.turned, PAIR])[-1]["content"]
    assert [text.count(f"## Example {number}\n") for number in (1, 2, 3, 4)] == [1, 1, 1, 0]
    assert "There are 3 examples." in text


def test_a_question_is_known_again_by_all_that_its_verdict_depends_on() -> None:
    def digest(model: str = "m", pair: Comparison = PAIR, **changes: object) -> str:
        return digest_question(REASONS.model_copy(update=changes), model, pair)

    others = [
        digest(),
        digest("n"),
        digest(temperature=0.0),
        digest(max_tokens=None),
        digest(logit_bias={"7": 5.0}),
        digest(criterion="Which is kinder?"),
        digest(system="{criterion}"),
        digest(labels={"A": "A", "B": "B"}),
        digest(demonstrations=[]),
        digest(batch=2),
        digest(pair=PAIR.turned),
        digest(pair=Comparison((user_turn("?"),), PAIR.first, PAIR.second)),
    ]
    assert len(set(others)) == len(others)
    assert digest() == others[0]
    told: JudgeConfiguration = REASONS.model_copy(update={"price": None, "usual_tokens": 3, "name": "other"})
    assert digest_question(told, "m", PAIR) == others[0]  # what decides no verdict
