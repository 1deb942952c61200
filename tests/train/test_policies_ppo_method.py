"""PPO from recipe to artifact: the reward rises, what is left out is counted, a killed run goes on as if it had not."""

import json
from pathlib import Path

from train.tiny_ppo import ppo_run
from train.tiny_runs import history

from tureen_train.config import ExpertRun
from tureen_train.policies.run import train_policy

LETTERS = {"source": "function", "function": "train.tiny_ppo:count_letters", "name": "letters"}


def entries(folder: Path, key: str) -> list[float]:
    return [entry[key] for entry in history(folder) if key in entry]


def trained(run: ExpertRun, resume: bool = False) -> Path:
    assert train_policy(run, resume) is not None
    return Path(run.output)


def test_ppo_raises_a_simple_reward(base: Path, tmp_path: Path) -> None:
    """The share of the letters a to m, from a fixed seed. An untrained policy has about a sixth of them."""
    run = ppo_run(
        base,
        tmp_path,
        policy={"steps": 16, "prompts": 8, "epochs": 2, "kl": 0.005, "kl_control": "fixed"},
        sampling={"count": 8, "max_tokens": 6},
        optimisation={"learning_rate": 1.5e-2, "batch": 64, "schedule": "constant"},
        watch={"eval_at_start": True, "log_every": 5},
        data={"eval_limit": 8},
    )
    folder = trained(run)
    rewards = entries(folder, "reward")
    assert sum(rewards[:3]) / 3 < 0.25
    assert sum(rewards[-3:]) / 3 > 0.45
    held = entries(folder, "eval_heldout_reward")
    assert held[-1] > held[0] + 0.15
    assert json.loads((folder / "metrics.json").read_text())["heldout"]["reward"] == held[-1]
