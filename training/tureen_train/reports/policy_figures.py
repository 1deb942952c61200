"""The figures by step of a policy that learns from its own answers: their names in the logs, titles and units. Pure.

This is the one place that knows them, whatever method wrote the log. An entry of a log counts if it has a reward.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REWARD = "reward"
GROUPS = "answers/"  # before the figures of answers in the log of TRL's trainers
DEVIATION = "_std"
# the names of TRL's trainers for figures that others log too; theirs are of the same units
TRL_NAMES = {"kl": "kl_per_token", "clip_ratio/region_mean": "clip_share", "entropy": "entropy"}


@dataclass(frozen=True)
class StepFigure:
    """A figure by step.

    Attributes:
        key: its name in a log.
        title: in a few words.
        unit: what it is measured in.
        drawn: whether it has a panel of its own.
    """

    key: str
    title: str
    unit: str
    drawn: bool = True


REWARDS = StepFigure(REWARD, "Reward", "mean over answers")
FIGURES = (
    StepFigure("kl_per_token", "KL from the reference", "nats per token"),
    StepFigure("length", "Length of answers", "tokens"),
    StepFigure("entropy", "Entropy of the policy", "nats per token"),
    StepFigure("clip_share", "Clipped ratios", "share"),
    StepFigure("unfinished", "Answers without an end", "share", drawn=False),
    StepFigure("failed", "Answers without a reward", "share", drawn=False),
    StepFigure("kept_share", "Answers or pairs kept", "share", drawn=False),
)


@dataclass(frozen=True)
class PolicySteps:
    """The figures of each step.

    Attributes:
        unit: ``step`` or ``round``.
        numbers: of the steps.
        rewards: the mean reward of all answers of a step by name, the weighted sum as :data:`REWARD`; NaN if unknown.
        figures: the others, by :attr:`StepFigure.key`; those that no step has are left out.
    """

    unit: str
    numbers: Sequence[int]
    rewards: Mapping[str, Sequence[float]]
    figures: Mapping[str, Sequence[float]]


def read_policy_steps(history: Sequence[Mapping[str, Any]]) -> PolicySteps:
    """Read the figures of the steps from the entries of a log; no steps if there are none."""
    entries = [own for own in map(_translate, history) if REWARD in own]
    unit = "round" if any("round" in own for own in entries) else "step"
    names = list(dict.fromkeys(name for own in entries for name in own if _is_reward(name, own)))
    keys = [each.key for each in FIGURES if any(own.get(each.key) is not None for own in entries)]
    return PolicySteps(
        unit,
        [own[unit] for own in entries],
        {name.removeprefix(f"{REWARD}_"): [_read(own, name) for own in entries] for name in names},
        {key: [_read(own, key) for own in entries] for key in keys},
    )


def _translate(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry with the names that all methods share."""
    if f"{GROUPS}{REWARD}" not in entry:
        return entry
    own = {name.removeprefix(GROUPS): value for name, value in entry.items() if name.startswith(GROUPS)}
    own |= {TRL_NAMES[name]: value for name, value in entry.items() if name in TRL_NAMES}
    return {**own, "step": entry["step"]}


def _is_reward(name: str, entry: Mapping[str, Any]) -> bool:
    if name.endswith(DEVIATION) and name.removesuffix(DEVIATION) in entry:
        return False
    return name == REWARD or name.startswith(f"{REWARD}_")


def _read(entry: Mapping[str, Any], name: str) -> float:
    value = entry.get(name)
    return math.nan if value is None else float(value)


def choose_steps(steps: PolicySteps) -> list[int]:
    """Choose the places of the first, the middle and the last step."""
    count = len(steps.numbers)
    return sorted({0, (count - 1) // 2, count - 1}) if count else []


def name_rewards(steps: PolicySteps) -> dict[str, Sequence[float]]:
    """Name the rewards for a reader. A single reward that is the sum itself is told once."""
    own = {name: values for name, values in steps.rewards.items() if name != REWARD}
    total = steps.rewards.get(REWARD, ())
    if len(own) == 1 and _equal(total, next(iter(own.values()))):
        return dict(own)
    return {"weighted sum": total, **own}


def _equal(ones: Sequence[float], others: Sequence[float]) -> bool:
    return all(
        math.isclose(one, other, rel_tol=1e-9) or (math.isnan(one) and math.isnan(other))
        for one, other in zip(ones, others, strict=True)
    )
