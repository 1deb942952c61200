"""RLHFlow's filter of turns, SHP's ratio, pairs by mean ratings: what is left, and why the others went."""

import math
from typing import Any

import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import UNLABELLED, BadOption, Record
from tureen_train.transforms.filters import keep_alternating, merge_prompts, pair_by_mean, pair_by_score_ratio

ASKED = (user_turn("q"),)


def texts(*names: str) -> Any:
    return tuple((assistant_turn(name),) for name in names)


def scored(prompt: str, *scores: float) -> Record:
    return Record((user_turn(prompt),), texts(*(f"{prompt}{score:g}" for score in scores)), scores, prompt)


def rated(prompt: str, **ratings: list[float]) -> Record:
    count = len(next(iter(ratings.values())))
    columns = {name: tuple(values) for name, values in ratings.items()}
    return Record(
        (user_turn(prompt),), texts(*map(str, range(count))), (UNLABELLED,) * count, prompt, attributes=columns
    )


# --------------------------------------------------------------------------- turns


def test_turns_that_alternate_and_differ_in_the_last_are_kept() -> None:
    longer = Record((user_turn("a"), assistant_turn("b"), user_turn("c")), texts("x", "y", "z"), (2, 1, 0))
    records = [scored("q", 1, 0), longer]
    kept = keep_alternating(iter(records))
    assert (kept.records, dict(kept.left_out)) == (records, {})


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record((user_turn("a"), user_turn("b")), texts("x", "y"), (1, 0)), "an odd number of messages"),
        (
            Record(
                (),
                (
                    (user_turn("a"), assistant_turn("x")),
                    (user_turn("a"), assistant_turn("b"), user_turn("c"), assistant_turn("y")),
                ),
                (1, 0),
            ),
            "numbers of messages differ",
        ),
        (
            Record(({"role": "system", "content": "s"},), texts("x", "y"), (1, 0)),
            "turns do not alternate",
        ),
        (Record((user_turn(""),), texts("x", "y"), (1, 0)), "an empty message"),
        (
            Record(
                (),
                ((user_turn("a"), assistant_turn("x")), (user_turn("b"), assistant_turn("y"))),
                (1, 0),
            ),
            "contexts differ",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_turns_are_left_out_by_reason(record: Record, reason: str) -> None:
    kept = keep_alternating([record, scored("q", 1, 0)])
    assert len(kept.records) == 1
    assert kept.left_out == {reason: 1}


# --------------------------------------------------------------------------- ratios


def test_scores_must_be_further_apart_than_the_ratio() -> None:
    kept = pair_by_score_ratio(
        [scored("a", 7, 3), scored("b", 6, 3), scored("c", 5, 0), scored("d", 5, -1), scored("e", 1, 1)]
    )
    assert [record.scores for record in kept.records] == [(7, 3)]
    assert kept.left_out == {"a ratio of 2 or less": 1, "a score that is not positive": 2}


def test_a_prompt_gives_so_many_pairs_over_all_its_records() -> None:
    records = [scored("a", 9, 1), *[scored("a", 20 + n, 2) for n in range(6)], scored("b", 9, 4)]
    kept = pair_by_score_ratio(records, most=5, seed=1)
    assert [record.source for record in kept.records] == ["a"] * 5 + ["b"]
    assert kept.left_out == {"more than 5 pairs of a prompt": 2}
    assert kept == pair_by_score_ratio(records, most=5, seed=1)
    assert {kept.records[0].scores, *(pair_by_score_ratio(records, seed=n).records[0].scores for n in range(9))} != {
        (9, 1)
    }


@pytest.mark.parametrize(("ratio", "most"), [(0.9, 5), (math.nan, 5), (2, 0)])
def test_a_ratio_below_one_means_nothing(ratio: float, most: int) -> None:
    with pytest.raises(BadOption, match="must be 1 or more"):
        pair_by_score_ratio([], ratio, most)


# --------------------------------------------------------------------------- means


def test_four_answers_make_six_pairs_by_their_mean() -> None:
    kept = pair_by_mean([rated("q", helpful=[4, 3, 2, 1], honest=[4, 1, 2, 1])])
    assert [(pair.answers[0][0]["content"], pair.answers[1][0]["content"]) for pair in kept.records] == [
        ("0", "1"),
        ("0", "2"),
        ("0", "3"),
        ("1", "3"),
        ("2", "3"),
    ]
    assert kept.left_out == {"equal means": 1}
    assert kept.records[0].scores == (4, 2)


def test_named_ratings_alone_are_averaged_and_all_must_be_there() -> None:
    records = [rated("q", helpful=[4, 3, 9], correct=[0, 3, UNLABELLED], verbose=[9, 0, 0])]
    kept = pair_by_mean(records, ["helpful", "correct"])
    assert [pair.scores for pair in kept.records] == [(3, 2)]
    assert kept.left_out == {"an answer with a missing rating": 1}
    with pytest.raises(BadOption, match="no record has the rating 'tone'; the ratings are: correct, helpful, verbose"):
        pair_by_mean(records, ["tone"])


def test_rows_of_one_answer_are_put_together_by_their_prompt() -> None:
    rows = [rated("q", helpful=[1]), rated("p", helpful=[3]), rated("q", helpful=[2]), rated("q", honest=[5])]
    (joined, alone) = merge_prompts(rows)
    assert joined.prompt == ASKED
    assert joined.attributes["helpful"][:2] == (1, 2)
    assert math.isnan(joined.attributes["helpful"][2])
    assert alone == rows[1]
    kept = pair_by_mean(rows, ["helpful"])
    assert [pair.scores for pair in kept.records] == [(2, 1)]
    assert kept.left_out == {"an answer with a missing rating": 1, "a prompt with one answer": 1}


def test_whole_conversations_stay_apart() -> None:
    whole = Record((), ((user_turn("a"), assistant_turn("x")),), (1,))
    assert merge_prompts([whole, whole]) == [whole, whole]
