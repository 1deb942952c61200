"""The rewards that a policy is asked for: drawn for the rounds, and for held-out prompts. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from tureen.errors import Unprocessable
from tureen_core.reward_tags import round_reward, tag_messages
from tureen_core.steering import TagSteering
from tureen_train.config import RecipeError
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.prompts import PromptSet

Way = Literal["published", "uniform"]


def draw_desired(random: np.random.Generator, steering: TagSteering, way: Way) -> dict[str, float]:
    """Draw the reward to reach for each objective, uniformly in its range and rounded as a tag states it.

    Args:
        way: ``published`` then sets all but the smallest to the upper end of their range, the first one of equal
            smallest ones excepted; ``uniform`` leaves them.
    """
    ranges = steering.objectives
    drawn = [round_reward(random.uniform(each.low, each.high), steering.decimals) for each in ranges]
    if way == "published":
        least = drawn.index(min(drawn))
        drawn = [own if at == least else each.high for at, (own, each) in enumerate(zip(drawn, ranges, strict=True))]
    return dict(zip(steering.names, drawn, strict=True))


def draw_requests(found: PromptSet, count: int, seed: str, steering: TagSteering, way: Way) -> list[Prompt]:
    """Draw prompts with replacement, each with rewards to reach, the longest first.

    Returns:
        The prompts without tags. A number makes their ids different, also where one prompt is drawn again.
    """
    random = make_generator(seed)
    drawn = [int(at) for at in random.integers(len(found.prompts), size=count)]
    asked = [
        replace(found.prompts[at], id=f"{found.prompts[at].id}@{number}", desired=draw_desired(random, steering, way))
        for number, at in enumerate(drawn, start=1)
    ]
    return [asked[at] for at in sorted(range(count), key=lambda at: (-found.lengths[drawn[at]], at))]


def ask_uniformly(prompts: Sequence[Prompt], seed: int, steering: TagSteering) -> list[Prompt]:
    """Give each prompt rewards to reach, uniform in their ranges. They depend on the seed and the prompt's id."""
    return [
        replace(each, desired=draw_desired(make_generator(f"{seed} {each.id}"), steering, "uniform"))
        for each in prompts
    ]


def make_generator(seed: str) -> np.random.Generator:
    """Make a generator of random numbers that a text decides."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "big"))


def tag_prompt(prompt: Prompt, steering: TagSteering) -> Prompt:
    """Write the rewards to reach into a prompt.

    Raises:
        RecipeError: the prompt has no turn of the user.
    """
    assert prompt.desired is not None
    try:
        messages = tag_messages(prompt.messages, prompt.desired, steering)
    except Unprocessable as error:
        raise RecipeError(f"data: {prompt.id} cannot state rewards: {error.message}") from error
    return replace(prompt, messages=tuple(messages))
