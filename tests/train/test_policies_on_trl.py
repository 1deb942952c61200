"""GRPO and RLOO from recipe to artifact: the reward rises, failures teach nothing, a broken run goes on."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from train.tiny_ppo import FUNCTION, ppo_run
from train.tiny_runs import history

from tureen_train.config import ExpertRun, RecipeError
from tureen_train.policies.on_trl import make_arguments
from tureen_train.policies.run import train_policy

METHODS = ("grpo", "rloo")


def group_run(base: Path, folder: Path, method: str, **changes: Any) -> ExpertRun:
    optimisation = {"learning_rate": 1.5e-2, "batch": 8, "schedule": "constant", **changes.pop("optimisation", {})}
    steps = changes.pop("steps", 2)
    run = ppo_run(
        base,
        folder,
        policy={"method": "ppo"},
        sampling={"count": 8, "max_tokens": 6, **changes.pop("sampling", {})},
        optimisation=optimisation,
        **changes,
    )
    raw = run.model_dump(exclude={"policy"})
    raw["policy"] = {"method": method, "kl": 0.005, "max_length": 64}
    raw["optimisation"]["max_steps"] = steps
    return ExpertRun.model_validate(raw)


def fail_often(prompts: Sequence[Sequence[Mapping[str, str]]], answers: Sequence[str]) -> list[float | None]:
    """A reward that fails for every other answer."""
    return [None if place % 2 else float(len(answer)) for place, answer in enumerate(answers)]


@pytest.mark.parametrize("method", METHODS)
def test_a_simple_reward_rises(method: str, base: Path, tmp_path: Path) -> None:
    """The share of the letters a to m, from a fixed seed."""
    run = group_run(base, tmp_path, method, steps=20)
    artifact = train_policy(run)
    assert artifact is not None
    rewards = [entry["reward"] for entry in history(tmp_path / "run") if "reward" in entry]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.15
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == 20 * 64
    assert lines[0]["rewards"].keys() == {"letters"}
    entries = [entry for entry in history(tmp_path / "run") if "rewards/letters/mean" in entry]
    assert entries
    assert all(entry["answers/reward_letters"] == pytest.approx(entry["rewards/letters/mean"]) for entry in entries)
    metrics = artifact.manifest.training.metrics["heldout"]
    assert metrics["reward_after"] > metrics["reward_before"]


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_is_the_unbroken_one(method: str, base: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    watch = {"eval_at_start": False, "save_every": 2, "log_every": 1}
    train_policy(group_run(base, whole, method, steps=4, watch=watch))
    train_policy(group_run(base, broken, method, steps=3, watch=watch))
    # as if it had been broken after its last checkpoint, before the held-out answers are rewarded
    shutil.rmtree(broken / "run/checkpoints/checkpoint-3")
    (broken / "run/rollouts/before/heldout/rewards.jsonl").unlink()
    train_policy(group_run(base, broken, method, steps=4, watch=watch), resume=True)
    for name in ("samples.jsonl", "held_answers.jsonl", "account.json"):
        assert (broken / "run" / name).read_text() == (whole / "run" / name).read_text()
    names = ("model/adapter_model.safetensors", "artifact/adapter_model.safetensors")
    assert [(broken / "run" / name).read_bytes() for name in names] == [
        (whole / "run" / name).read_bytes() for name in names
    ]


def test_failed_rewards_are_counted_and_teach_nothing(base: Path, tmp_path: Path) -> None:
    source = {**FUNCTION, "function": "train.test_policies_on_trl:fail_often", "name": "often"}
    train_policy(group_run(base, tmp_path, "grpo", rewards=[source]))
    account = json.loads((tmp_path / "run" / "account.json").read_text())
    held = len((tmp_path / "run" / "held_answers.jsonl").read_text().splitlines())
    assert account["rewards"]["answers"] == 2 * 64 + 2 * held
    assert account["rewards"]["without_reward"] == 64 + 2 * (held // 2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert {line["total"] is None for line in lines} == {True, False}


def test_a_checkpoint_never_stands_between_two_updates_on_the_same_answers(base: Path, tmp_path: Path) -> None:
    run = group_run(base, tmp_path, "grpo", watch={"save_every": 3})
    policy = run.policy.model_copy(update={"iterations": 2})
    with pytest.raises(RecipeError, match="watch.save_every: must be a multiple of policy.iterations, 2"):
        make_arguments(run.model_copy(update={"policy": policy}))


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({"count": 1}, "sampling.count: grpo compares answers"),
        ({"engine": "server", "url": "http://x"}, "sampling.engine"),
    ],
)
def test_settings_that_trl_cannot_run_are_refused(
    sampling: dict[str, Any], said: str, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        make_arguments(group_run(base, tmp_path, "grpo", sampling=sampling))
