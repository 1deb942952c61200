"""PPO by two processes ends with what one makes: DDP, and ZeRO-2 and ZeRO-3 that are killed at a checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from train.launching import MARKS
from train.ranks import Ranks, run_ranks
from train.test_policies_killed import some
from train.tiny_ppo import ppo_run
from train.tiny_runs import history, records

pytestmark = MARKS

WAYS = {"DDP": 0, "ZeRO-2": 2, "ZeRO-3": 3}


def write_recipe(base: Path, folder: Path, batch: int, zero: int = 0) -> Path:
    """Two steps with two updates each, of answers that no batch of two processes divides evenly."""
    folder.mkdir()
    run = ppo_run(
        base,
        folder,
        policy={"steps": 2, "prompts": 3, "minibatches": 2, "scale_scores": True, "kl_target": 0.5},
        sampling={"batch": 4, "max_tokens": 6},
        optimisation={"batch": batch, "learning_rate": 2e-3},
        watch={"save_every": 1, "eval_at_start": True},
        data={"train": [{"path": str(records(folder))}], "eval_limit": 3},
        scale={"zero": zero},
    )
    path = Path(run.output).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(run.model_dump(mode="json")))
    return path


def files_of(folder: Path) -> dict[str, str]:
    """All answers and rewards, and what became of them."""
    paths = [*folder.glob("rollouts/**/*.jsonl"), folder / "held_answers.jsonl", folder / "account.json"]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def figures_of(folder: Path) -> list[dict[str, Any]]:
    """The log: rewards, advantages' and values' figures, losses and KL by step."""
    return [{name: entry[name] for name in entry if name != "train_runtime"} for entry in history(folder)]


@pytest.fixture(scope="module")
def alone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run by one process."""
    recipe = write_recipe(base, tmp_path_factory.mktemp("ppo") / "one", 4)
    run_ranks(recipe, 1)
    return recipe.with_suffix("")


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_write_and_learn_what_one_does(way: str, base: Path, alone: Path, tmp_path: Path) -> None:
    recipe, flags = write_recipe(base, tmp_path / "two", 2, WAYS[way]), list[str]()
    folder = recipe.with_suffix("")
    if WAYS[way]:
        Ranks(recipe, 2).kill_when(some(folder, "checkpoints/checkpoint-1"))
        flags = ["--resume"]
    run_ranks(recipe, 2, *flags)
    assert files_of(folder) == files_of(alone)
    for own, other in zip(figures_of(folder), figures_of(alone), strict=True):
        assert own == pytest.approx(other, abs=2e-4)
    own, other = (load_file(each / "model/adapter_model.safetensors") for each in (folder, alone))
    assert own.keys() == other.keys()
    for name, weight in other.items():
        assert torch.allclose(own[name], weight, atol=2e-4), name
    own, other = (json.loads((each / "metrics.json").read_text()) for each in (folder, alone))
    assert own["heldout"] == pytest.approx(other["heldout"], abs=1e-4)
