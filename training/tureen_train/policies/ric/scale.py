"""The scale of the rewards that tags state: measured on the data, and applied to rewards. Pure."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np

from tureen.json_lines import encode_line
from tureen_core.reward_tags import round_range, round_reward
from tureen_core.steering import TaggedReward, TagSteering
from tureen_train.config import RecipeError, RicPolicy
from tureen_train.policies.rollouts.contract import Reward
from tureen_train.policies.rollouts.rounds import Answered

DRAWS = 100_000  # of a normal distribution, whose extremes are the published range
DECIMALS = 1  # of the published rounding


def measure_scale(
    answered: Answered, names: Sequence[str], policy: RicPolicy, sources: Mapping[str, str]
) -> list[TaggedReward]:
    """Measure mean, population deviation and range of each reward over the answers that have all rewards.

    Args:
        answered: the data's answers with their raw rewards.
        sources: what read each reward, in words.

    Raises:
        RecipeError: there is no such answer, or a reward is the same for all.
    """
    rewarded = [each for own in answered.rewards for each in own if each.total is not None]
    if not rewarded:
        raise RecipeError("rewards: no answer of data.train has all rewards, so there is nothing to train on")
    digest = digest_answers(answered)
    found = []
    for name in names:
        values = [round_raw(each.values[name], policy) for each in rewarded]
        mean = math.fsum(values) / len(values)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
        if not deviation > 0:
            raise RecipeError(f"rewards: {name} is {mean:g} for all answers of data.train, so it tells none apart")
        lowest, highest = ((value - mean) / deviation for value in (min(values), max(values)))
        low, high = find_published_range() if policy.range == "published" else round_range(lowest, highest)
        found.append(
            TaggedReward(
                name=name, data=digest, source=sources[name], mean=mean, deviation=deviation, low=low, high=high
            )
        )
    return found


@cache
def find_published_range() -> tuple[float, float]:
    """Find the extremes of draws of a normal distribution, rounded: the range that RiC asks rewards of."""
    drawn = np.random.default_rng(0).standard_normal(DRAWS)
    return round_reward(float(drawn.min()), DECIMALS), round_reward(float(drawn.max()), DECIMALS)


def digest_answers(answered: Answered) -> str:
    """A SHA-256 of the answers that have all rewards, with their prompts."""
    digest = hashlib.sha256()
    for prompt, written, rewards in zip(answered.prompts, answered.written, answered.rewards, strict=True):
        texts = [one.sample.text for one, reward in zip(written, rewards, strict=True) if reward.total is not None]
        digest.update(encode_line({"prompt": [dict(turn) for turn in prompt.messages], "answers": texts}))
    return digest.hexdigest()


def round_raw(raw: float, policy: RicPolicy) -> float:
    """Round a raw reward of the data as the recipe says."""
    return round_reward(raw, DECIMALS) if policy.rounding == "published" else raw


def normalise_data(rewards: Sequence[Sequence[Reward]], steering: TagSteering, policy: RicPolicy) -> list[list[Reward]]:
    """Normalise the raw rewards of the data's answers. Raw ones are rounded first, as published."""
    scales = {each.name: each for each in steering.objectives}
    return _map_rewards(rewards, lambda name, raw: scales[name].normalise(round_raw(raw, policy)))


def normalise_own(rewards: Sequence[Sequence[Reward]], steering: TagSteering, policy: RicPolicy) -> list[list[Reward]]:
    """Normalise the raw rewards of the policy's answers. What they obtained is rounded after, as published."""
    scales = {each.name: each for each in steering.objectives}

    def normalise(name: str, raw: float) -> float:
        value = scales[name].normalise(raw)
        return round_reward(value, steering.decimals) if policy.rounding == "published" else value

    return _map_rewards(rewards, normalise)


def _map_rewards(rewards: Sequence[Sequence[Reward]], change: Callable[[str, float], float]) -> list[list[Reward]]:
    """Change each reward; the total becomes their mean, or stays None where one failed."""
    return [[_map_reward(each, change) for each in own] for own in rewards]


def _map_reward(reward: Reward, change: Callable[[str, float], float]) -> Reward:
    values = {name: change(name, value) for name, value in reward.values.items()}
    total = None if reward.total is None else math.fsum(values.values()) / len(values)
    return Reward(values, total, reward.error)
