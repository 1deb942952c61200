"""Distinct pairs of words, counted by hand."""

import math

import pytest

from tureen_train.config import FunctionSource
from tureen_train.measures.repetition import compute_distinct_bigrams
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.rollouts.contract import Prompt, Sample
from tureen_train.policies.rollouts.function_rewards import open_functions


@pytest.mark.parametrize(
    ("text", "share"),
    [("a b c d", 1.0), ("a b a b a", 0.5), ("so so so so", 1 / 3), ("a b\na  b", 2 / 3), ("one two", 1.0)],
)
def test_the_share_of_distinct_pairs(text: str, share: float) -> None:
    assert compute_distinct_bigrams(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", " ", "one"])
def test_a_text_without_a_pair_has_no_share(text: str) -> None:
    assert math.isnan(compute_distinct_bigrams(text))


def test_variety_is_a_reward_that_recipes_can_name() -> None:
    function = "tureen_train.measures.repetition:reward_variety"
    (valuer,) = open_functions([FunctionSource(source="function", name="variety", function=function)])
    prompt = Prompt("p", ({"role": "user", "content": "why?"},))
    samples = [[Sample("p", number, text) for number, text in enumerate(("a b c", "a b a b a", "one"))]]
    found = valuer.value_samples([prompt], samples, ignore_progress).values["variety"]
    assert [each.number for each in found[0]] == [1.0, 0.5, 1.0]
