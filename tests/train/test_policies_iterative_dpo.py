"""Iterative DPO raises a simple reward on a tiny model; its reference is the round's start, or the run's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from train.tiny_rounds import rounds_run
from train.tiny_runs import history

from tureen_core.artifact import open_artifact
from tureen_train.config import ExpertRun, RecipeError
from tureen_train.policies.preference_trainer import REFERENCES
from tureen_train.policies.run import train_policy


def trained(run: ExpertRun) -> Path:
    assert train_policy(run) is not None
    return Path(run.output)


def test_iterative_dpo_raises_a_simple_reward(base: Path, tmp_path: Path) -> None:
    """The share of the letters a to m, from a fixed seed. An untrained policy has about a sixth of them."""
    run = rounds_run(
        base,
        tmp_path,
        "iterative-dpo",
        prompts=64,
        policy={"rounds": 3},
        sampling={"count": 16, "batch": 1024},
        optimisation={"batch": 8, "epochs": 2},
    )
    folder = trained(run)
    rewards = [entry["reward"] for entry in history(folder) if "kept_share" in entry]
    assert rewards == sorted(rewards)
    metrics = open_artifact(folder / "artifact").manifest.training.metrics["heldout"]
    assert metrics["reward_after"] > metrics["reward_before"] + 0.2


@pytest.mark.parametrize("start", [False, True])
def test_the_reference_is_the_rounds_start_or_the_runs(start: bool, base: Path, tmp_path: Path) -> None:
    model: dict[str, Any] = {}
    if start:
        first = trained(rounds_run(base, tmp_path, "iterative-dpo", policy={"rounds": 1}))
        model = {"start": str(first / "model")}
    folders = {}
    for name in ("round", "base"):
        place = tmp_path / name
        place.mkdir()
        run = rounds_run(base, place, "iterative-dpo", policy={"reference": name}, model=model)
        folders[name] = trained(run)
    samples = {name: (folder / "rounds/002/samples.jsonl").read_bytes() for name, folder in folders.items()}
    assert samples["round"] == samples["base"]  # the first rounds are the same
    losses = {name: read_losses(folder) for name, folder in folders.items()}
    assert losses["round"][2][0] == pytest.approx(0.6931, abs=1e-3)
    assert losses["base"][1] == losses["round"][1]
    assert abs(losses["base"][2][0] - 0.6931) > 1e-3
    known = {name: load_file(folder / "rounds/002/training" / REFERENCES)["train"] for name, folder in folders.items()}
    assert not torch.allclose(known["round"], known["base"], atol=1e-2)


def read_losses(folder: Path) -> dict[int, list[float]]:
    losses: dict[int, list[float]] = {}
    for entry in history(folder):
        if "loss" in entry:
            losses.setdefault(entry["round"], []).append(entry["loss"])
    return losses


def test_a_sharded_base_cannot_be_the_reference(base: Path, tmp_path: Path) -> None:
    run = rounds_run(base, tmp_path, "iterative-dpo", policy={"reference": "base"}, scale={"zero": 3})
    with pytest.raises(RecipeError, match=r"policy\.reference: base cannot be read under scale\.zero: 3"):
        train_policy(run)
