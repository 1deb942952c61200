"""Reward tags: which rewards preferences ask for, and the tags that state them in a prompt. Pure.

Rewards-in-Context (arXiv 2402.10207) trains on prompts that state the rewards of their answers, and asks for other
rewards when it is served. A reward that is asked for is normalised, and stays in the range of the manifest: what lies
beyond it was never trained.
"""

import math
from collections.abc import Mapping, Sequence

from tureen.errors import Unprocessable
from tureen_core.steering import Mapped, TaggedReward, TagSteering
from tureen_core.steering_place import append_words, change_message, change_text
from tureen_core.turns import Messages, Turn


def map_preferences(
    weights: Mapping[str, float], rewards: Sequence[TaggedReward], mapping: Mapped = "l2", decimals: int = 1
) -> dict[str, float]:
    """Turn preferences into the rewards to ask for, one for each of ``rewards``, rounded to ``decimals``.

    With n rewards and weights w whose sum is 1, each is low + share · (high − low), where the share is

    * ``l2``: w_i / ‖w‖₂, as RiC's evaluation has it;
    * ``linf``: 1 for the largest weight, the first one of several, and min(n · w_i, 1) for the others;
    * ``linear``: w_i.

    Example::

        map_preferences({"harmless": 0.1, "helpful": 0.9}, rewards, "linf")  # {"harmless": -2.4, "helpful": 4.0}

    Args:
        weights: by objective; one that is left out has weight 0. None is negative, and one is positive.
        rewards: their ranges; here both are from -4 to 4.
    """
    given = [weights.get(each.name, 0.0) for each in rewards]
    shares = _share(given, mapping)
    return {
        each.name: round_reward(each.low + share * (each.high - each.low), decimals)
        for each, share in zip(rewards, shares, strict=True)
    }


def _share(weights: Sequence[float], mapping: Mapped) -> list[float]:
    if mapping == "linear":
        return [min(each, 1.0) for each in weights]
    if mapping == "l2":
        return [min(each / math.hypot(*weights), 1.0) for each in weights]
    largest = weights.index(max(weights))
    return [1.0 if at == largest else min(len(weights) * each, 1.0) for at, each in enumerate(weights)]


def round_reward(reward: float, decimals: int) -> float:
    """Round a reward as its tag states it. There is no -0."""
    return round(reward, decimals) + 0.0


def round_range(low: float, high: float, decimals: int = 1) -> tuple[float, float]:
    """Round a range inwards to ``decimals``, so that it holds nothing that the data did not have."""
    unit = 10**decimals
    inner = math.ceil(round(low * unit, 6)), math.floor(round(high * unit, 6))
    return round_reward(inner[0] / unit, decimals), round_reward(inner[1] / unit, decimals)


def check_desired_rewards(
    desired: Mapping[str, float], steering: TagSteering, field: str = "desired_rewards"
) -> dict[str, float]:
    """Check the rewards that a caller asks for, and return them rounded, in the order of the tags.

    Raises:
        Unprocessable: an objective is unknown or missing, or its reward is not in the range of the manifest.
    """
    known = ", ".join(steering.names)
    for name in desired:
        if name not in steering.names:
            raise Unprocessable(
                f"unknown objective {name!r}; known: {known}", param=f"{field}.{name}", code="unknown_objective"
            )
    if missing := [name for name in steering.names if name not in desired]:
        message = f"there is no reward for {missing[0]!r}: each prompt has a tag for each of {known}; give all of them"
        raise Unprocessable(message, param=f"{field}.{missing[0]}")
    for each in steering.objectives:
        wanted = desired[each.name]
        if not each.low <= wanted <= each.high:
            message = f"a normalised reward of {wanted:g} for {each.name!r} is beyond what the policy was trained on"
            raise Unprocessable(
                f"{message}: send {each.low:g} to {each.high:g}, in standard deviations from the training's mean",
                param=f"{field}.{each.name}",
                code="reward_out_of_range",
            )
    return {name: round_reward(desired[name], steering.decimals) for name in steering.names}


def write_tags(rewards: Mapping[str, float], steering: TagSteering) -> str:
    """Write the tags of all rewards.

    Example::

        write_tags({"harmless": 0.4, "helpful": 1.2}, steering)  # "<rm1_score> 0.4 <rm2_score> 1.2 "
    """
    return "".join(
        _write_tag(index, name, rewards[name], steering) for index, name in enumerate(steering.names, start=1)
    )


def _write_tag(index: int, name: str, reward: float, steering: TagSteering) -> str:
    number = f"{round_reward(reward, steering.decimals):.{steering.decimals}f}"
    return steering.tag.replace("{score}", number).replace("{index}", str(index)).replace("{name}", name)


def tag_messages(messages: Messages, rewards: Mapping[str, float], steering: TagSteering) -> list[Turn]:
    """Write the tags at the end of a message, after a space.

    Example::

        tag_messages([{"role": "user", "content": "Hi"}], {"helpful": 1.2}, steering)
        # [{"role": "user", "content": "Hi <rm1_score> 1.2"}]

    Raises:
        Unprocessable: there is no message of the user.
    """
    tags = write_tags(rewards, steering).rstrip()
    return change_message(messages, steering.place, lambda said: append_words(said, tags))


def tag_text(text: str, rewards: Mapping[str, float], steering: TagSteering, marker: str = "") -> str:
    r"""Write the tags at the end of a bare prompt, before the ``marker`` of the answer if the prompt ends with it.

    White space at the end of the prompt, or before the marker, stays there.

    Example::

        tag_text("\n\nHuman: Hi\n\nAssistant:", {"helpful": 1.2}, steering, "\n\nAssistant:")
        # "\n\nHuman: Hi <rm1_score> 1.2\n\nAssistant:"

    Raises:
        Unprocessable: the tags stand in the system's message, which a bare prompt does not have.
    """
    tags = write_tags(rewards, steering).rstrip()

    def change(said: str) -> str:
        return append_words(said, tags) + said[len(said.rstrip()) :]

    return change_text(text, steering.place, change, marker)
