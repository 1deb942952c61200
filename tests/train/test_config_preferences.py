"""Preference sentences in a recipe: RLPHF's by default, one's own, and what is refused."""

from itertools import product
from typing import Any

import pytest
from pydantic import ValidationError

from tureen_train.config import PromptPreferences


def test_rlphfs_sentences_and_its_eight_combinations_in_order() -> None:
    preferences = PromptPreferences(add="combinations")
    assert list(preferences.by_pole) == ["P1A", "P1B", "P2A", "P2B", "P3A", "P3B", "P3C", "P3D"]
    assert preferences.by_pole["P2A"] == "Generate a response that is concise and to the point, without being verbose."
    assert preferences.choices == list(product(("P1A", "P1B"), ("P2A", "P2B"), ("P3A", "P3B")))
    whole = PromptPreferences(add="combinations", poles=list(preferences.by_pole))
    assert len(whole.choices) == 16


def test_poles_are_added_one_by_one_and_may_be_chosen() -> None:
    assert PromptPreferences(add="poles", poles=["P3D"]).choices == [("P3D",)]
    assert PromptPreferences(add="combinations", poles=["P1A", "P3B", "P3C"]).choices == [
        ("P1A", "P3B"),
        ("P1A", "P3C"),
    ]
    assert PromptPreferences().choices == []


def test_own_sentences_bring_their_own_poles() -> None:
    preferences = PromptPreferences(
        add="combinations", sentences={"tone": {"kind": "Be kind."}, "size": {"s": "Short."}}
    )
    assert preferences.poles == ["kind", "s"]
    assert preferences.choices == [("kind", "s")]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"poles": ["P4A"]}, "'P4A' has no sentence; there are P1A, P1B"),
        ({"poles": ["P1A", "P1A"]}, "P1A is named twice"),
        ({"poles": []}, "at least 1"),
        ({"sentences": {"tone": {"a b": "Be kind."}}}, "'a b': use 1 to 64 of letters"),
        ({"sentences": {"tone": {"a": "Be kind."}, "size": {"a": "Short."}}}, "a stands in two dimensions"),
        ({"sentences": {"tone": {"a": "  "}}}, "the sentence of a is empty"),
        ({"sentences": {"tone": {"a": "Be  kind.", "b": "Be kind."}}}, "two poles have the sentence 'Be kind.'"),
        ({"sentences": {}}, "at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        PromptPreferences(**keys)
