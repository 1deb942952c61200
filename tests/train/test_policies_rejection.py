"""Rejection sampling raises a simple reward on a tiny model, and imitates only what it kept."""

import json
from pathlib import Path

from train.tiny_rounds import rounds_run
from train.tiny_runs import history

from tureen_core.artifact import open_artifact
from tureen_train.policies.run import train_policy


def test_rejection_sampling_raises_a_simple_reward(base: Path, tmp_path: Path) -> None:
    """The share of the letters a to m, from a fixed seed. An untrained policy has about a sixth of them."""
    run = rounds_run(
        base,
        tmp_path,
        "rejection",
        prompts=64,
        policy={"rounds": 3},
        sampling={"count": 16, "batch": 1024},
        optimisation={"batch": 16, "epochs": 2},
    )
    assert train_policy(run) is not None
    folder = Path(run.output)
    rewards = [entry["reward"] for entry in history(folder) if "kept_share" in entry]
    assert rewards == sorted(rewards)
    metrics = open_artifact(folder / "artifact").manifest.training.metrics["heldout"]
    assert metrics["reward_after"] > metrics["reward_before"] + 0.15
    kept = [json.loads(line) for line in (folder / "rounds/001/kept.jsonl").read_text().splitlines()]
    samples = [json.loads(line) for line in (folder / "rounds/001/rewards.jsonl").read_text().splitlines()]
    best = {row["prompt"]: max(each["total"] for each in row["rewards"]) for row in samples}
    assert {row["id"]: row["rewards"]["total"] for row in kept} == best
    losses = [entry["loss"] for entry in history(folder) if entry.get("round") == 1 and "loss" in entry]
    assert losses[-1] < losses[0]
