"""Rows of labels by a reward that compares answers: no scores, and both orders checked."""

import math

import pytest

from tureen.errors import Unprocessable
from tureen.labelling.items import Item
from tureen.labelling.pairs import choose_pairs
from tureen.labelling.preference_data import make_rows
from tureen.labelling.recipe import Recipe
from tureen.wire import Label

ITEM = Item.model_validate({"prompt": "Why?", "candidates": ["zero", "one", "two"]})
SHOWN = [[0.5, 0.8, 0.3], [0.4, 0.5, 0.2], [0.9, 0.7, 0.5]]
MATRIX = [[0.5, 0.7, 0.2], [0.3, 0.5, 0.25], [0.8, 0.75, 0.5]]


def label() -> Label:
    """Two beats zero beats one; between zero and one the place decides."""
    return Label(
        index=0,
        ranking=[2, 0, 1],
        chosen=2,
        rejected=1,
        margin=math.log(0.75 / 0.25),
        probability=0.75,
        tie=False,
        matrix=MATRIX,
        orders=(0.7, 0.8),
        order_matrix=SHOWN,
    )


def test_the_label_says_its_margin_and_both_orders() -> None:
    (pair,) = choose_pairs("7", label(), Recipe("trl"))
    assert (pair.chosen, pair.rejected, pair.probability, pair.orders) == (2, 1, 0.75, (0.7, 0.8))
    assert pair.margin == pytest.approx(math.log(3))


def test_other_pairs_are_read_off_the_matrices() -> None:
    best, worst, swayed = choose_pairs("7", label(), Recipe("trl", pairs="all"))
    assert (best.chosen, best.rejected) == (2, 0)
    assert best.orders == pytest.approx((0.9, 0.7))
    assert worst.orders == pytest.approx((0.7, 0.8))
    assert (swayed.chosen, swayed.rejected) == (0, 1)
    assert swayed.orders == pytest.approx((0.8, 0.6))
    assert swayed.margin == pytest.approx(math.log(0.7 / 0.3))
    assert not swayed.undecided


def test_a_pair_that_its_place_decided_is_a_tie() -> None:
    shown = [[0.5, 0.9, 0.3], [0.6, 0.5, 0.2], [0.9, 0.7, 0.5]]
    swayed = label().model_copy(update={"order_matrix": shown})
    found = make_rows("7", ITEM, swayed, Recipe("trl", pairs="all", ties="drop"))
    assert [row["id"] for row in found.rows] == ["7/2-0", "7/2-1"]
    assert found.dropped == {"tie": 1}


def test_rows_have_no_scores() -> None:
    (row,) = make_rows("7", ITEM, label(), Recipe("trl")).rows
    assert row == {
        "id": "7",
        "prompt": [{"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "two"}],
        "rejected": [{"role": "assistant", "content": "one"}],
        "margin": pytest.approx(math.log(3)),
        "probability": 0.75,
        "orders": [0.7, 0.8],
    }


def test_a_form_of_scores_is_refused() -> None:
    with pytest.raises(Unprocessable, match="compares answers"):
        make_rows("7", ITEM, label(), Recipe("text-score"))
