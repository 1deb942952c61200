"""Distinct pairs of words, counted by hand."""

import math

import pytest

from tureen_train.measures.repetition import compute_distinct_bigrams


@pytest.mark.parametrize(
    ("text", "share"),
    [("a b c d", 1.0), ("a b a b a", 0.5), ("so so so so", 1 / 3), ("a b\na  b", 2 / 3), ("one two", 1.0)],
)
def test_the_share_of_distinct_pairs(text: str, share: float) -> None:
    assert compute_distinct_bigrams(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", " ", "one"])
def test_a_text_without_a_pair_has_no_share(text: str) -> None:
    assert math.isnan(compute_distinct_bigrams(text))
