"""Pairs, splits by prompt, limits and mixtures."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.pairing import split_into_pairs
from tureen.records.schema import UNLABELLED, BadOption, Record
from tureen_train.records.splitting import hold_out_prompts, limit_records


def record(prompt: int, *scores: float, tag: str = "") -> Record:
    answers = tuple((assistant_turn(f"{tag}{index}"),) for index in range(len(scores)))
    return Record((user_turn(f"prompt {prompt}"),), answers, scores, source=f"file:{prompt}")


MANY = [record(number, 1, 0) for number in range(1000)]

prompts = st.lists(st.integers(0, 30), max_size=60)
seeds = st.integers(0, 2**31)


def test_every_comparable_pair_becomes_a_record_with_the_better_first() -> None:
    pairs = list(split_into_pairs([record(0, 0.5, 2, 0.5, UNLABELLED)]))
    assert [(pair.answers[0][0]["content"], pair.answers[1][0]["content"]) for pair in pairs] == [
        ("1", "0"),
        ("1", "2"),
    ]
    assert all(pair.scores == (2.0, 0.5) for pair in pairs)
    assert {pair.source for pair in pairs} == {"file:0"}


def test_ties_unlabelled_and_single_answers_make_no_pair() -> None:
    assert list(split_into_pairs([record(0, 1, 1), record(1, UNLABELLED, 0), record(2, 1)])) == []


def test_names_follow_their_answers() -> None:
    answers = tuple((assistant_turn(name),) for name in "abc")
    named = Record((user_turn("q"),), answers, (0, 1, 0), meta={"names": ["a", "b", "c"], "id": 7})
    assert [pair.meta for pair in split_into_pairs([named])] == [
        {"names": ["b", "a"], "id": 7},
        {"names": ["b", "c"], "id": 7},
    ]


def test_pairs_of_pairs_are_the_pairs() -> None:
    pairs = list(split_into_pairs([record(0, 3, 2, 1)]))
    assert list(split_into_pairs(pairs)) == pairs


@settings(deadline=None)
@given(prompts, st.floats(0, 1), seeds)
def test_no_prompt_is_on_both_sides_and_nothing_is_lost(numbers: list[int], fraction: float, seed: int) -> None:
    records = [record(number, 1, 0, tag=f"{index}-") for index, number in enumerate(numbers)]
    kept, held = hold_out_prompts(records, fraction, seed)
    assert {each.prompt_key for each in kept}.isdisjoint(each.prompt_key for each in held)
    assert sorted(map(records.index, kept + held)) == list(range(len(records)))


@settings(deadline=None)
@given(prompts, seeds)
def test_the_side_of_a_prompt_does_not_depend_on_the_file(numbers: list[int], seed: int) -> None:
    records = [record(number, 1, 0) for number in numbers]
    alone = {each.prompt_key for each in hold_out_prompts(records, 0.3, seed)[1]}
    mixed = {each.prompt_key for each in hold_out_prompts([*MANY[:50], *reversed(records)], 0.3, seed)[1]}
    assert alone <= mixed


def test_about_the_fraction_is_held_out_and_the_seed_decides_which() -> None:
    kept, held = hold_out_prompts(MANY, 0.2, seed=1)
    assert 150 < len(held) < 250
    assert held != hold_out_prompts(MANY, 0.2, seed=2)[1]
    assert held == hold_out_prompts(MANY, 0.2, seed=1)[1]
    assert [each.source for each in kept] == sorted((each.source for each in kept), key=lambda name: int(name[5:]))


def test_a_larger_fraction_holds_out_what_a_smaller_one_does() -> None:
    small, large = hold_out_prompts(MANY, 0.1, seed=3)[1], hold_out_prompts(MANY, 0.4, seed=3)[1]
    assert all(each in large for each in small)
    assert hold_out_prompts(MANY, 0.0, seed=3) == (MANY, [])
    assert hold_out_prompts(MANY, 1.0, seed=3) == ([], MANY)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(BadOption, match="held-out fraction must be 0 to 1"):
        hold_out_prompts(MANY, fraction, 0)


def test_a_limit_keeps_the_order_and_grows_by_addition() -> None:
    few, more = limit_records(MANY, 10, seed=5), limit_records(MANY, 30, seed=5)
    assert (len(few), len(more)) == (10, 30)
    assert all(each in more for each in few)
    assert [MANY.index(each) for each in more] == sorted(MANY.index(each) for each in more)
    assert few != limit_records(MANY, 10, seed=6)


def test_a_limit_over_the_count_keeps_everything() -> None:
    assert limit_records(MANY[:3], 7, seed=0) == MANY[:3]
    assert limit_records(MANY, 0, seed=0) == []
    with pytest.raises(BadOption, match="0 or more"):
        limit_records(MANY, -1, seed=0)
