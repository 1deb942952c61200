"""One record: what it accepts, what it compares, and by what it is split."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tureen.records.schema import UNLABELLED, BadRecord, Conversation, DataError, Record
from tureen.records.spelling import split_prompt


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def record(*scores: float, prompt: str = "why?") -> Record:
    return Record((user(prompt),), tuple((bot(f"answer {i}"),) for i in range(len(scores))), scores)


def test_conversations_put_the_prompt_before_each_answer() -> None:
    assert record(1, 0).conversations == (
        (user("why?"), bot("answer 0")),
        (user("why?"), bot("answer 1")),
    )


@pytest.mark.parametrize(
    ("scores", "pairs"),
    [
        ((1, 0), [(0, 1)]),
        ((0, 1), [(1, 0)]),
        ((1, 1), []),
        ((2, 0.5, -1), [(0, 1), (0, 2), (1, 2)]),
        ((1, 0, 0, 0, 0), [(0, 1), (0, 2), (0, 3), (0, 4)]),
        ((1, UNLABELLED, 0), [(0, 2)]),
        ((UNLABELLED, UNLABELLED), []),
        ((1,), []),
    ],
)
def test_pairs_leave_out_ties_and_unlabelled_answers(scores: tuple[float, ...], pairs: list[tuple[int, int]]) -> None:
    assert record(*scores).pairs == pairs


@settings(deadline=None)
@given(st.lists(st.one_of(st.floats(allow_infinity=False), st.sampled_from([0.0, 1.0])), min_size=1, max_size=6))
def test_every_unordered_pair_is_comparable_once_or_is_a_tie_or_unlabelled(scores: list[float]) -> None:
    pairs = record(*scores).pairs
    both = [(i, j) for i in range(len(scores)) for j in range(i)]
    equal = sum(scores[i] == scores[j] for i, j in both)
    dark = sum(math.isnan(scores[i]) or math.isnan(scores[j]) for i, j in both)
    assert len(pairs) == len(both) - equal - dark
    assert all(scores[better] > scores[worse] for better, worse in pairs)


def test_unlabelled_records_are_equal_whatever_nan_they_were_made_with() -> None:
    assert record(float("nan"), 1) == record(math.nan * 2, 1)


def test_a_record_is_frozen_and_its_source_is_no_part_of_equality() -> None:
    one = dataclasses.replace(record(1, 0), source="a.json:1")
    assert one == dataclasses.replace(one, source="b.json:7")
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.source = "c"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("prompt", "answers", "scores", "reason", "words"),
    [
        ((), (), (), "no answer", "at least one"),
        ((user("q"),), ((bot("a"),),), (1.0, 0.0), "lengths differ", "1 answers and 2 scores"),
        ((user("q"),), ((bot("a"),),), (math.inf,), "bad score", "finite"),
        ((user("q"),), ((bot(" \n"),),), (1.0,), "no answer", r"answers\[0\] is blank"),
        ((user("q"),), ((user("a"),),), (1.0,), "no answer", r"answers\[0\] must end with an assistant"),
        ((user("q"),), ((bot("a"),), ()), (1.0, 0.0), "no answer", r"answers\[1\] must end"),
        (({"role": "bot", "content": "q"},), ((bot("a"),),), (1.0,), "bad message", r"prompt\[0\].role is 'bot'"),
        (({"role": "user"},), ((bot("a"),),), (1.0,), "bad message", r"prompt\[0\] must have role and content"),
        (({"role": "user", "content": 3},), ((bot("a"),),), (1.0,), "wrong type", r"prompt\[0\].content.*int"),
        ((user("q"), {"role": "system", "content": "s"}), ((bot("a"),),), (1.0,), "bad message", "stands first"),
        ((user("q"),), (({"role": "system", "content": "s"}, bot("a")),), (1.0,), "bad message", "stands first"),
        ((user("\ud800"),), ((bot("a"),),), (1.0,), "not Unicode", r"prompt\[0\].content.*character 0"),
        ((user("q"),), ((bot("ab\udfff"),),), (1.0,), "not Unicode", r"answers\[0\]\[0\].content.*character 2"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused_by_field(
    prompt: Conversation, answers: tuple[Conversation, ...], scores: tuple[float, ...], reason: str, words: str
) -> None:
    with pytest.raises(BadRecord, match=words) as caught:
        Record(prompt, answers, scores)
    assert caught.value.reason == reason


def test_a_system_turn_may_open_the_prompt_or_a_whole_conversation() -> None:
    system = {"role": "system", "content": "be brief"}
    assert Record((system, user("q")), ((bot("a"),),), (1.0,)).prompt[0] == system
    assert Record((), ((system, user("q"), bot("a")),), (1.0,)).answers[0][0] == system


def test_a_bad_record_says_where_it_stands() -> None:
    error = BadRecord("bad score", "`score[1]` must be a number").at("train.jsonl:7")
    assert str(error) == "train.jsonl:7: bad score: `score[1]` must be a number"
    assert isinstance(error, DataError)
    assert isinstance(error, ValueError)


def test_the_key_follows_the_prompt_alone_and_not_its_white_space() -> None:
    key = record(1, 0).prompt_key
    assert key == record(0, 1, 2, prompt=" why?\r\n").prompt_key
    assert key != record(1, 0, prompt="why not?").prompt_key
    assert len(key) == 16


def test_the_key_of_a_prompt_tells_roles_apart() -> None:
    answers = ((bot("a"),),)
    as_user = Record((user("x"), user("y")), answers, (1.0,))
    as_bot = Record((user("x"), bot("y")), answers, (1.0,))
    assert as_user.prompt_key != as_bot.prompt_key


def test_the_key_is_the_same_on_every_machine() -> None:
    assert record(1, 0).prompt_key == "0d641fbfcfd8cae6"


def test_whole_conversations_have_the_key_of_the_turns_that_they_share() -> None:
    longer = (user("why?"), bot("because"), user("of what?"), bot("of that"))
    apart = Record((), (longer, (user("why?"), bot("no idea"))), (1.0, 0.0))
    assert apart.prompt_key == record(1, 0).prompt_key
    strangers = Record((), ((user("a"), bot("b")), (user("c"), bot("d"))), (1.0, 0.0))
    assert strangers.prompt_key != apart.prompt_key


def test_conversations_that_agree_up_to_the_answer_share_their_prompt() -> None:
    prompt = (user("a"), bot("b"), user("c"))
    assert split_prompt([(*prompt, bot("x")), (*prompt, bot("y"))]) == (prompt, ((bot("x"),), (bot("y"),)))


def test_conversations_that_differ_earlier_stay_whole() -> None:
    whole = [(user("a"), bot("b"), user("c"), bot("x")), (user("a"), bot("y"))]
    assert split_prompt(whole) == ((), tuple(whole))


def test_no_number_of_a_record_is_a_negative_zero() -> None:
    answers = (bot("a"),), (bot("b"),)
    made = Record((user("q"),), answers, (-0.0, 0.0), attributes={"n": (-0.0, 1)}, steps=((-0.0,), (1,)))
    assert "-0" not in f"{made.scores} {made.attributes} {made.steps}"
