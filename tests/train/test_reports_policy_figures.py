"""The figures of a policy by step, read from the logs of each method: the same figures under the same names."""

import math
from typing import Any

import pytest

from tureen_train.reports.policy_figures import choose_steps, name_rewards, read_policy_steps

PPO: list[dict[str, Any]] = [
    {"eval_heldout_reward": 0.2, "step": 0},
    {
        "reward": 0.5,
        "reward_std": 0.1,
        "reward_kind": 1.0,
        "reward_kind_std": 0.2,
        "reward_brief": -1.0,
        "length": 7.0,
        "kl": 3.0,
        "kl_per_token": 0.25,
        "entropy": 2.0,
        "clip_share": 0.125,
        "loss": 0.3,
        "step": 1,
    },
    {"reward": None, "reward_brief": -2.0, "length": 8.0, "kl_per_token": None, "step": 2},
    {"train_runtime": 1.0, "train_loss": 0.3, "step": 2},
]
GROUPS: list[dict[str, Any]] = [
    {
        "loss": 0.1,
        "reward": 0.4,  # RLOO's, without the penalty
        "reward_std": 0.1,
        "rewards/kind/mean": 0.5,
        "answers/reward": 0.5,
        "answers/reward_std": 0.1,
        "answers/reward_kind": 0.5,
        "answers/length": 6.0,
        "kl": 0.25,
        "entropy": 2.0,
        "clip_ratio/region_mean": 0.125,
        "step": 5,
    }
]
ROUNDS: list[dict[str, Any]] = [
    {"round": 1, "reward": 0.1, "reward_kind": 0.1, "length": 6.0, "kl_per_token": 0.0, "kept_share": 0.5, "step": 0},
    {"round": 1, "loss": 0.7, "reward_chosen": 0.1, "step": 1},
    {"round": 2, "reward": 0.3, "reward_kind": 0.3, "length": 5.0, "kl_per_token": 0.1, "kept_share": 0.4, "step": 1},
]


def test_ppos_steps_are_those_entries_that_have_a_reward() -> None:
    steps = read_policy_steps(PPO)
    assert (steps.unit, steps.numbers) == ("step", [1, 2])
    assert steps.rewards.keys() == {"reward", "kind", "brief"}
    assert steps.rewards["brief"] == [-1, -2]
    assert steps.rewards["reward"] == pytest.approx([0.5, math.nan], nan_ok=True)
    assert steps.figures["kl_per_token"] == pytest.approx([0.25, math.nan], nan_ok=True)
    assert steps.figures.keys() == {"kl_per_token", "length", "entropy", "clip_share"}


def test_the_log_of_groups_is_translated_and_its_reward_is_that_of_the_answers() -> None:
    steps = read_policy_steps(GROUPS)
    assert (steps.unit, steps.numbers) == ("step", [5])
    assert steps.rewards == {"reward": [0.5], "kind": [0.5]}
    assert steps.figures == {"kl_per_token": [0.25], "length": [6], "entropy": [2], "clip_share": [0.125]}


def test_rounds_count_rounds_and_the_steps_of_their_training_are_none() -> None:
    steps = read_policy_steps(ROUNDS)
    assert (steps.unit, steps.numbers) == ("round", [1, 2])
    assert steps.figures == {"kl_per_token": [0, 0.1], "length": [6, 5], "kept_share": [0.5, 0.4]}


def test_other_runs_have_no_steps() -> None:
    steps = read_policy_steps([{"loss": 0.5, "step": 1}, {"eval_heldout_accuracy": 0.5, "step": 1}])
    assert steps.numbers == []
    assert choose_steps(steps) == []


def test_a_reward_that_is_the_sum_is_told_once() -> None:
    assert name_rewards(read_policy_steps(ROUNDS)) == {"kind": [0.1, 0.3]}
    assert list(name_rewards(read_policy_steps(PPO))) == ["weighted sum", "kind", "brief"]
    halved = [{**entry, "reward_kind": 2 * entry["reward"]} if "reward" in entry else entry for entry in ROUNDS]
    assert list(name_rewards(read_policy_steps(halved))) == ["weighted sum", "kind"]


@pytest.mark.parametrize(("count", "places"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (8, [0, 3, 7])])
def test_the_first_the_middle_and_the_last_step_are_chosen(count: int, places: list[int]) -> None:
    assert choose_steps(read_policy_steps([{"reward": 0.0, "step": step} for step in range(count)])) == places
