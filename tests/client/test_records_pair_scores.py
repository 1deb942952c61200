"""The scores and margins of a chosen and a rejected answer in their spellings; what is ambiguous is only told."""

from typing import Any

import pytest

from tureen.records.forms import parse_record
from tureen.records.schema import BadRecord

PAIR = {"prompt": "q", "chosen": "x", "rejected": "y"}
NAMES = [
    ("score_chosen", "score_rejected"),
    ("chosen_avg_rating", "rejected_avg_rating"),
    ("score_w", "score_l"),
    ("w_score", "l_score"),
    ("score_j", "score_k"),
    ("winner_score", "loser_score"),
    ("reward_of_preferred", "reward_of_dispreferred"),
    ("better_rating", "worse_rating"),
]
MARGINS = [
    "margin",
    "gap",
    "difference",
    "delta",
    "score_gap",
    "rating_diff",
    "reward_margin",
    "diff_score",
    "gap_in_rewards",
]


@pytest.mark.parametrize("names", NAMES)
def test_scores_of_both_sides_are_read_in_every_spelling(names: tuple[str, str]) -> None:
    better, worse = names
    draft = parse_record({**PAIR, worse: 2, better: "4.5"}, strict=True)
    assert draft.scores == (4.5, 2.0)
    assert parse_record({**PAIR, better: 3, worse: 3}).finish("")[0].pairs == []
    with pytest.raises(BadRecord, match=f"`{better}` 1 is below `{worse}` 2"):
        parse_record({**PAIR, better: 1, worse: 2})


@pytest.mark.parametrize("names", NAMES)
def test_one_score_alone_is_told(names: tuple[str, str]) -> None:
    draft = parse_record({**PAIR, names[1]: 2})
    assert draft.scores == (1.0, 0.0)
    assert draft.columns == {names[1]: "not understood, kept beside the record"}


def test_scores_of_different_spellings_are_no_two_of_one_kind() -> None:
    draft = parse_record({**PAIR, "score_w": 1, "score_k": 2})
    assert draft.scores == (1.0, 0.0)
    assert draft.columns.keys() == {"score_w", "score_k"}


@pytest.mark.parametrize("name", MARGINS)
@pytest.mark.parametrize(
    ("margin", "scores"), [(2, (1.0, 0.0)), ("0.5", (1.0, 0.0)), (0, (0.5, 0.5)), ("0", (0.5, 0.5))]
)
def test_the_sign_of_a_margin_is_read(name: str, margin: Any, scores: tuple[float, float]) -> None:
    assert parse_record({**PAIR, name: margin}, strict=True).scores == scores


@pytest.mark.parametrize("name", MARGINS)
def test_a_negative_margin_contradicts(name: str) -> None:
    with pytest.raises(BadRecord, match=f"contradict which answer is preferred: `{name}` is -2"):
        parse_record({**PAIR, name: -2})
    assert parse_record({**PAIR, name: -2}, turn=True).scores == (0.0, 1.0)


def test_a_text_about_the_difference_is_no_margin() -> None:
    draft = parse_record({**PAIR, "difference": "The first is shorter."})
    assert draft.scores == (1.0, 0.0)
    with pytest.raises(BadRecord, match="`score_diff` must be a number or null"):
        parse_record({**PAIR, "score_diff": "much"})


@pytest.mark.parametrize("name", ["score_a", "positive_score", "length_gap", "diff"])
def test_a_column_that_could_mean_something_else_is_told(name: str) -> None:
    draft = parse_record({**PAIR, name: 0})
    assert draft.scores == (1.0, 0.0)
    assert draft.columns == {name: "not understood, kept beside the record"}


@pytest.mark.parametrize(
    ("mark", "scores"), [(True, (0.5, 0.5)), ("1.0", (0.5, 0.5)), ("no", (1.0, 0.0)), (0, (1.0, 0.0))]
)
def test_a_mark_of_ties_is_true_or_false(mark: Any, scores: tuple[float, float]) -> None:
    assert parse_record({**PAIR, "is_tie": mark}).scores == scores


def test_another_mark_of_ties_is_refused() -> None:
    with pytest.raises(BadRecord, match="`is_tie` must be true or false, is 'perhaps'"):
        parse_record({**PAIR, "is_tie": "perhaps"})
