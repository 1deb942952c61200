"""The rewards that are asked for, drawn as published and uniformly, and written into prompts."""

from typing import Any

import numpy as np
import pytest

from tureen.records.dialogue import user_turn
from tureen_core.steering import TaggedReward, TagSteering
from tureen_train.config import RecipeError
from tureen_train.policies.ric.desired import (
    ask_uniformly,
    draw_desired,
    draw_requests,
    make_generator,
    tag_prompt,
)
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.prompts import PromptSet
from tureen_train.records.encoding_report import EncodingReport

PROMPTS = [Prompt(f"file:{at}", (user_turn("why? " * at),)) for at in range(1, 4)]
FOUND = PromptSet(PROMPTS, [10, 20, 30], 0, EncodingReport("prompts", 3))


def steering(count: int, **changes: Any) -> TagSteering:
    ranges = [
        TaggedReward(name=f"o{at}", data="", mean=0, deviation=1, low=-4.0 - at, high=4.0 + at) for at in range(count)
    ]
    return TagSteering(family="ric", objectives=ranges, **changes)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_as_published_all_but_the_smallest_are_at_their_upper_end(count: int) -> None:
    tags, random = steering(count), np.random.default_rng(3)
    highs = {each.name: each.high for each in tags.objectives}
    below = set()
    for _ in range(200):
        drawn = draw_desired(random, tags, "published")
        free = [name for name, value in drawn.items() if value != highs[name]]
        assert len(free) <= 1
        below |= set(free)
        assert all(round(value, 1) == value and abs(value) <= highs[name] for name, value in drawn.items())
    assert below == set(highs)


def test_uniform_draws_fill_each_range() -> None:
    random = np.random.default_rng(3)
    drawn = np.array([list(draw_desired(random, steering(2), "uniform").values()) for _ in range(2000)])
    assert drawn.mean(0) == pytest.approx([0, 0], abs=0.2)
    assert drawn.std(0) == pytest.approx([8 / 12**0.5, 10 / 12**0.5], rel=0.05)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.1


def test_prompts_are_drawn_with_replacement_and_have_ids_of_their_own() -> None:
    """None is lost, whatever the number: the original loses the last ones at a batch above 1 (``drop_last``)."""
    asked = draw_requests(FOUND, 25, "7 round 1", steering(2), "published")
    assert len({each.id for each in asked}) == len(asked) == 25
    assert {each.id.partition("@")[0] for each in asked} == {"file:1", "file:2", "file:3"}
    lengths = [len(each.messages[0]["content"]) for each in asked]
    assert lengths == sorted(lengths, reverse=True)
    assert asked == draw_requests(FOUND, 25, "7 round 1", steering(2), "published")
    assert asked != draw_requests(FOUND, 25, "7 round 2", steering(2), "published")
    assert all(each.desired is not None and "rm1_score" not in each.messages[0]["content"] for each in asked)


def test_a_held_out_prompt_is_asked_the_same_whatever_stands_beside_it() -> None:
    assert ask_uniformly(PROMPTS, 7, steering(2))[1] == ask_uniformly(PROMPTS[1:], 7, steering(2))[0]
    assert ask_uniformly(PROMPTS, 7, steering(2)) != ask_uniformly(PROMPTS, 8, steering(2))
    assert make_generator("a").integers(99) == make_generator("a").integers(99)


def test_tags_stand_at_the_end_of_the_users_last_turn() -> None:
    prompt = Prompt("file:1", (user_turn("How do I boil an egg?"),), desired={"o0": 0.4, "o1": 1.2})
    (turn,) = tag_prompt(prompt, steering(2)).messages
    assert turn["content"] == "How do I boil an egg? <rm1_score> 0.4 <rm2_score> 1.2"
    with pytest.raises(RecipeError, match=r"data: file:9 cannot state rewards: no message of the user"):
        tag_prompt(Prompt("file:9", ({"role": "system", "content": "x"},), desired={"o0": 0.4, "o1": 1}), steering(2))
