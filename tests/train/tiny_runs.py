"""Recipes small enough to run in a second, on data that a tiny model can learn: it should like foxes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tureen_train.config import ExpertRun, RewardRun, resolve_recipe

GOOD = "the quick brown fox jumps"
BAD = "why do leaves fall"
LORA = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj", "down_proj"]}


def records(folder: Path, count: int = 24, widest: int = 4, first: int = 0) -> Path:
    """A ``text``/``score`` file of prompts with 2 to ``widest`` answers: one good, the others bad, some equally so."""
    rows = []
    for number in range(first, first + count):
        answers = [GOOD, *[f"{BAD} {extra}" for extra in range(1 + number % (widest - 1))]]
        scores = [1.0, *[0.0] * (len(answers) - 1)]
        text = [f"\n\nHuman: prompt {number}\n\nAssistant: {answer} {number}" for answer in answers]
        rows.append({"text": text, "score": scores})
    path = folder / "records.json"
    path.write_text(json.dumps(rows))
    return path


def reward_recipe(base: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """A reward recipe over :func:`records`; ``changes`` go into its groups, one level deep."""
    raw: dict[str, Any] = {
        "kind": "reward",
        "name": "foxes",
        "data": {"train": [{"path": str(records(folder))}], "holdout": 0.3},
        "model": {"base": str(base), "lora": LORA, "precision": "fp32"},
        "reading": {"max_length": 64},
        "optimisation": {"learning_rate": 5e-3, "max_steps": 4, "batch": 4, "seed": 7},
        "watch": {"log_every": 1},
        "probes": 4,
        "output": str(folder / "run"),
    }
    return merged(raw, changes)


def expert_recipe(base: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """An expert recipe over :func:`records`."""
    raw: dict[str, Any] = {
        "kind": "expert",
        "name": "foxes",
        "data": {"train": [{"path": str(records(folder))}], "holdout": 0.3, "pairs_per_prompt": 1},
        "model": {"base": str(base), "lora": LORA, "precision": "fp32"},
        "policy": {"max_length": 64},
        "optimisation": {"learning_rate": 5e-3, "max_steps": 6, "batch": 4, "seed": 7},
        "watch": {"log_every": 1},
        "probes": 3,
        "output": str(folder / "run"),
    }
    return merged(raw, changes)


def reward_run(base: Path, folder: Path, **changes: Any) -> RewardRun:
    run = resolve_recipe(reward_recipe(base, folder, **changes))
    assert isinstance(run, RewardRun)
    return run


def expert_run(base: Path, folder: Path, **changes: Any) -> ExpertRun:
    run = resolve_recipe(expert_recipe(base, folder, **changes))
    assert isinstance(run, ExpertRun)
    return run


def merged(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``raw`` with ``changes``; a group is changed key by key."""
    return {
        **raw,
        **{
            key: {**raw[key], **change} if isinstance(change, dict) and isinstance(raw.get(key), dict) else change
            for key, change in changes.items()
        },
    }


def history(folder: Path) -> list[dict[str, Any]]:
    """A run folder's log."""
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def untimed(folder: Path) -> list[dict[str, Any]]:
    """A run folder's log without what depends on the time it took."""
    return [
        {name: value for name, value in entry.items() if not name.endswith(("time", "per_second"))}
        for entry in history(folder)
    ]
