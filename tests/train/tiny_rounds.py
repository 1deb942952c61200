"""Tiny runs in rounds over a file of prompts, with a reward that is a function."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.tiny_ppo import count_letters
from train.tiny_runs import expert_run

from tureen_train.config import ExpertRun

METER = {"source": "function", "function": "train.tiny_rounds:reward_meter", "name": "meter"}
LETTERS = {"source": "function", "function": "train.tiny_ppo:count_letters", "name": "letters"}


def write_prompts(folder: Path, count: int) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"prompt {number}"}) + "\n" for number in range(count)))
    return path


def rounds_run(base: Path, folder: Path, method: str, **changes: Any) -> ExpertRun:
    """A run of two rounds; a quarter of its 16 prompts is held out, unless ``prompts`` says how many there are."""
    data = {"train": [{"path": str(write_prompts(folder, changes.pop("prompts", 16)))}], "holdout": 0.25}
    policy = {"method": method, "max_length": 64, "rounds": 2, **changes.pop("policy", {})}
    sampling = {"count": 4, "max_tokens": 6, "max_prompt": 48, "batch": 32, **changes.pop("sampling", {})}
    optimisation = {"learning_rate": 1e-2, "batch": 4, "seed": 7, "max_steps": -1, **changes.pop("optimisation", {})}
    optimisation = {"schedule": "constant", "warmup": 0.0, **optimisation}
    changes = {"rewards": [LETTERS], "data": {**data, "pairs_per_prompt": None}, **changes}
    return expert_run(base, folder, policy=policy, sampling=sampling, optimisation=optimisation, **changes)


class Meter:
    """A reward, the share of letters of each answer, that counts which answers it was asked for."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()


meter = Meter()


def reward_meter(prompts: Sequence[Sequence[Mapping[str, str]]], answers: Sequence[str]) -> list[float]:
    for prompt, answer in zip(prompts, answers, strict=True):
        meter.seen[f"{prompt[-1]['content']} {answer}"] += 1
    return count_letters(prompts, answers)


def reward_alike(prompts: Sequence[object], answers: Sequence[str]) -> list[float]:
    return [1.0] * len(answers)
