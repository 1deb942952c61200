"""RRM's rows are those of the published script, no partner fits; pseudo-labels name the likelier answer."""

import math

import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import UNLABELLED, BadOption, Record
from tureen_train.transforms.augmentation import add_counterfactuals, count_turned, label_by_model


def two(prompt: str, first: float = 1, second: float = 0) -> Record:
    answers = ((assistant_turn(f"{prompt}w"),), (assistant_turn(f"{prompt}l"),))
    return Record(
        (user_turn(prompt),), answers, (first, second), prompt, {"names": ["x", "y"]} if prompt == "n" else {}
    )


def said(record: Record) -> str:
    return " ".join(answer[0]["content"] for answer in record.answers)


# --------------------------------------------------------------------------- RRM


def test_each_pair_gives_fourteen_rows_in_the_published_order() -> None:
    kept = add_counterfactuals([two("i"), two("j"), two("k")], seed=3)
    assert len(kept.records) == 3 * 14
    assert kept.left_out == {}
    own = kept.records[:14]
    assert all(record.prompt == (user_turn("i"),) for record in own)
    wins, ties = own[:8], own[8:]
    assert all(record.scores == (1, 0) for record in wins)
    assert all(record.scores == (0.5, 0.5) for record in ties)
    j, k = wins[0].answers[1][0]["content"][0], wins[1].answers[1][0]["content"][0]
    assert {j, k} == {"j", "k"}
    assert [said(record) for record in wins] == [
        *(f"i{side} {partner}{other}" for side in "wl" for other in "wl" for partner in (j, k)),
    ]
    assert [said(record) for record in ties] == [
        f"{j}w {j}l",
        f"{k}w {k}l",
        f"{j}w {k}w",
        f"{j}w {k}l",
        f"{k}w {j}l",
        f"{j}l {k}l",
    ]
    assert own[0].meta == {"augmented": "iw jw"}


def test_no_pair_is_its_own_partner_and_the_seed_decides() -> None:
    items = [two(chr(ord("a") + number)) for number in range(12)]
    kept = add_counterfactuals(items, seed=1)
    assert len(kept.records) == 12 * 14
    for number, item in enumerate(items):
        partners = {said(record).split()[1][0] for record in kept.records[14 * number : 14 * number + 8]}
        assert len(partners) == 2
        assert item.source not in partners
    assert kept == add_counterfactuals(items, seed=1)
    assert kept != add_counterfactuals(items, seed=2)


def test_answers_to_the_same_prompt_are_no_counterexample() -> None:
    kept = add_counterfactuals([two("i"), two("i"), two("k")])
    assert kept.left_out["a partner with the same prompt"] > 0
    for record in kept.records:
        i, k = record.meta["augmented"].split()
        assert not (record.prompt == (user_turn("i"),) and i[0] != "i" and "i" in said(record))
        assert (i[0], k[0]) != ("i", "i")
    assert len(kept.records) + kept.left_out["a partner with the same prompt"] == 3 * 14


def test_three_pairs_with_a_prompt_are_needed() -> None:
    whole = Record((), ((user_turn("a"), assistant_turn("x")), (user_turn("b"), assistant_turn("y"))), (1, 0))
    with pytest.raises(BadOption, match="the data have 2"):
        add_counterfactuals([two("i"), two("j"), whole, two("t", 1, 1)])
    assert add_counterfactuals([two("i"), two("j"), two("k"), whole]).left_out == {"no common prompt": 1}


# --------------------------------------------------------------------------- pseudo-labels


def test_the_likelier_answer_comes_first_with_its_probability() -> None:
    kept = label_by_model([two("a"), two("b"), two("c", UNLABELLED, UNLABELLED)], [0.9, 0.1, 0.05])
    assert [said(record) for record in kept.records] == ["aw al", "bl bw", "cl cw"]
    assert all(record.scores == (1, 0) for record in kept.records)
    assert [record.meta["chosen_prob"] for record in kept.records] == [0.9, 0.9, 0.95]
    assert [record.meta.get("turned", False) for record in kept.records] == [False, True, False]
    assert count_turned(kept.records) == 1


def test_only_what_is_sure_and_short_enough_is_kept() -> None:
    records = [two(name) for name in "abcde"]
    kept = label_by_model(records, [0.8, 0.2, 0.81, 0.5, None])
    assert [said(record) for record in kept.records] == ["cw cl"]
    assert kept.left_out == {"not sure enough": 3, "too long for the model": 1}


@pytest.mark.parametrize("threshold", [0.4, 1.1, math.nan])
def test_a_threshold_below_a_half_keeps_what_is_unsure(threshold: float) -> None:
    with pytest.raises(BadOption, match="--threshold: use 0.5 to 1"):
        label_by_model([], [], threshold)
    with pytest.raises(ValueError, match="zip"):
        label_by_model([two("a")], [])
