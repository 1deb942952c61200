"""Tiny runs of Rewards-in-Context: answers of foxes and dogs, whose rewards are how many foxes and dogs they have."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.tiny_runs import expert_run

from tureen_train.config import ExpertRun

FOXES = {"source": "function", "function": "train.tiny_ric:count_foxes", "name": "foxes"}
DOGS = {"source": "function", "function": "train.tiny_ric:count_dogs", "name": "dogs"}


class Seen:
    """Counts which answers were rewarded."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()


seen = Seen()


def count_foxes(prompts: Sequence[Sequence[Mapping[str, str]]], answers: Sequence[str]) -> list[float | None]:
    for prompt, answer in zip(prompts, answers, strict=True):
        assert "score" not in prompt[-1]["content"]  # a reward model does not read the tags
        seen.answers[f"{prompt[-1]['content']} {answer}"] += 1
    return [float(each.count("fox")) if "lost" not in each else None for each in answers]


def count_dogs(prompts: Sequence[object], answers: Sequence[str]) -> list[float]:
    return [float(each.count("dog")) for each in answers]


def write_pairs(folder: Path, count: int) -> Path:
    """Pairs of answers, each with 0 to 3 foxes and 0 to 3 dogs."""
    path = folder / "pairs.jsonl"
    rows = []
    for number in range(count):
        answers = ["fox " * (at % 4) + "dog " * (at // 4 % 4) + "leaves" for at in (number * 5, number * 7 + 3)]
        rows.append({"prompt": f"prompt {number}", "chosen": answers[0], "rejected": answers[1]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ric_run(base: Path, folder: Path, **changes: Any) -> ExpertRun:
    """A run of both stages; a quarter of its 16 pairs is held out, unless ``pairs`` says how many there are."""
    data = {"train": [{"path": str(write_pairs(folder, changes.pop("pairs", 16)))}], "holdout": 0.25}
    online = {"rounds": 2, "prompts": 8, "original": 6, "steps": 2, "learning_rate": 1e-3, **changes.pop("online", {})}
    policy = {"method": "ric", "max_length": 96, "online": online, **changes.pop("policy", {})}
    sampling = {"count": 1, "max_tokens": 12, "max_prompt": 64, "batch": 32, **changes.pop("sampling", {})}
    optimisation = {"learning_rate": 1e-2, "batch": 4, "seed": 7, "max_steps": 4, **changes.pop("optimisation", {})}
    changes = {"rewards": [FOXES, DOGS], "data": {**data, "pairs_per_prompt": None}, **changes}
    return expert_run(base, folder, policy=policy, sampling=sampling, optimisation=optimisation, **changes)


def count_letters(prompts: Sequence[object], answers: Sequence[str]) -> list[float]:
    return [float(len(each)) for each in answers]
