"""Recipes over rated answers: how much an answer likes foxes, how long it is, and a rating that few have."""

import json
from pathlib import Path
from typing import Any

from train.tiny_runs import BAD, GOOD, LORA, merged

from tureen_core.artifact import Artifact
from tureen_train.config import RewardRun, resolve_recipe
from tureen_train.rewards.run import train_reward

NAMES = ["foxes", "verbosity", "rare"]


def rated(folder: Path, count: int = 40, name: str = "rated.jsonl") -> Path:
    """Rows of one answer: foxes or leaves, one to four times over, on scales of their own."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        liked, times = number % 2, 1 + number // 2 % 4
        answer = " ".join([GOOD if liked else BAD] * times)
        messages = [{"role": "user", "content": f"prompt {number}"}, {"role": "assistant", "content": answer}]
        rare = float(liked) if number % 3 == 0 else None
        rows.append({"messages": messages, "foxes": 10.0 * liked, "verbosity": times / 4, "rare": rare})
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def attributes_run(base: Path, folder: Path, **changes: Any) -> RewardRun:
    """A ridge fit over :func:`rated`; ``changes`` go into its groups."""
    raw: dict[str, Any] = {
        "kind": "reward",
        "name": "rated",
        "data": {"train": [{"path": str(rated(folder))}], "holdout": 0.3},
        "model": {"base": str(base), "lora": LORA, "precision": "fp32"},
        "reading": {"max_length": 96},
        "loss": {"method": "attributes", "attributes": NAMES, "fit": "ridge", "alphas": [0.01, 1.0, 100.0]},
        "optimisation": {"learning_rate": 5e-3, "max_steps": 4, "batch": 4, "seed": 7},
        "watch": {"log_every": 1},
        "probes": 4,
        "output": str(folder / "attributes"),
        "cache": str(folder / "cache"),
    }
    run = resolve_recipe(merged(raw, changes))
    assert isinstance(run, RewardRun)
    return run


def trained(run: RewardRun) -> Artifact:
    artifact = train_reward(run)
    assert artifact is not None
    return artifact
