"""Answers are cut at a further turn, and left out for what stands in them too often."""

import pytest

from tureen_train.config import Cleaning
from tureen_train.policies.ric.cleaning import clean_answer, cut_answer, find_excess
from tureen_train.policies.rollouts.contract import Sample
from tureen_train.policies.rollouts.rounds import Written

MARKS = ("\n\nHuman:", "\n\nAssistant:")


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("Boil it.\n\nHuman: And then?", "Boil it."),
        ("Boil it. \n\nAssistant: No.\n\nHuman: Why?", "Boil it."),
        ("\n\nHuman: hi", ""),
        ("Nothing to cut: Humans", "Nothing to cut: Humans"),
        ("  white space stays ", "  white space stays "),
    ],
)
def test_an_answer_ends_before_a_further_turn(text: str, cut: str) -> None:
    assert cut_answer(text, MARKS) == cut


@pytest.mark.parametrize("text", ["Human error", "A moment in the sun", "Responses: Sons", "a pass"])
def test_no_letters_of_a_mark_are_stripped(text: str) -> None:
    """The original removes marks by ``rstrip`` and ``strip``, which take their letters for a set."""
    assert cut_answer(f"{text}\n\nHuman: x", MARKS) == text
    assert cut_answer(f"{text}###Response:", ["###Response:"]) == text
    assert cut_answer(f"{text}</s>", ["</s>"]) == text


def test_dots_and_smileys_are_counted() -> None:
    assert find_excess("well ....", Cleaning()) is None
    assert find_excess("well ......", Cleaning()) == "answers with '.....'"
    assert find_excess(":) :)", Cleaning()) is None
    assert find_excess(":) :) :)", Cleaning()) == "answers with more than 2 ':)'"
    assert find_excess("..... :) :) :)", Cleaning(most={})) is None


def test_an_answer_that_is_cut_loses_the_ids_of_the_rest() -> None:
    whole = Written(Sample("p", 0, "One.\n\nHuman: Two", (1, 2, 3), False, (-1.0, -1.0, -1.0)), -3.0, -2.0)
    cut = clean_answer(whole, Cleaning())
    assert cut == Written(Sample("p", 0, "One.", (), True))
    assert clean_answer(whole, Cleaning(cut_at=[])) is whole
