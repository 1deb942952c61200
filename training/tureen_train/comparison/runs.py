"""What the comparison trains: the methods that the packaged family ``starter/family`` lacks, with its settings.

They are a multitask policy, the members of P-Soups, policies for fixed preferences (MORLHF), and Rewards-in-Context
without and with an online round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tureen_train.config import ExpertRun, FamilyRun, resolve_recipe
from tureen_train.config.families import merge_keys

Json = dict[str, Any]
SENTENCES = {
    "academy": "Answer as a scholar: precise, objective and well structured.",
    "entertainment": "Answer as an entertainer: playful, vivid and funny.",
    "literature": "Answer as a poet: with imagery, feeling and beautiful language.",
}
FRONTS: dict[str, tuple[str, ...]] = {
    "two": ("academy", "entertainment"),
    "three": ("academy", "entertainment", "literature"),
}
# the fixed preferences of MORLHF; at a corner it is the expert of that objective
MIXED: dict[str, list[tuple[float, ...]]] = {
    "two": [(0.3, 0.7), (0.5, 0.5), (0.7, 0.3)],
    "three": [(0.33, 0.33, 0.33)],
}
ROUNDS: Json = {"policy": {"rounds": 2}, "model": {"precision": "bf16"}}
IMITATION: Json = {
    "model": {"precision": "bf16", "lora": {"alpha": 16}},
    "optimisation": {"learning_rate": 4.0e-4, "epochs": 2, "batch": 8, "schedule": "linear", "warmup": 0.05},
}
ONLINE: Json = {
    "rounds": 1,
    "prompts": 256,
    "original": 256,
    "desired": "uniform",
    "steps": 96,
    "learning_rate": 1.0e-4,
}


@dataclass(frozen=True)
class ComparedMethods:
    """Where the packaged family is, and where the runs go.

    Attributes:
        family: the packaged recipe, with the place of its data.
        packaged: the folder of the packaged ``rewards`` and ``experts``.
        out: the folder of all runs.
    """

    family: FamilyRun
    packaged: Path
    out: Path

    def plan_run(self, name: str, objective: str, family: str, changes: Mapping[str, Any]) -> ExpertRun:
        """Plan a run with the settings of the family's experts and some changes."""
        raw = merge_keys(self.family.expert, changes)
        raw |= {"kind": "expert", "name": name, "objective": objective, "family": family}
        return cast(ExpertRun, resolve_recipe({**raw, "output": str(self.out / family / name)}, f"{family}/{name}"))

    def reward(self, name: str, weight: float = 1.0, scale: str = "calibrated") -> Json:
        """The source of a packaged reward."""
        path = str(self.packaged / "rewards" / name)
        return {"source": "artifact", "path": path, "name": name, "weight": weight, "scale": scale}

    def find_artifact(self, family: str, name: str) -> str:
        """The artifact of a run."""
        return str((self.out / family / name / "artifact").resolve())


def plan_runs(made: ComparedMethods) -> list[list[ExpertRun]]:
    """Plan what is trained. Each list needs what those before it have trained."""
    told = {"sentences": {"voice": SENTENCES}, "add": "poles"}
    runs = [
        made.plan_run("multitask", "multitask", "multitask", plan_multitask(made.out)),
        *(
            made.plan_run(
                name,
                name,
                "psoups",
                {**ROUNDS, "rewards": [made.reward(name)], "preferences": {**told, "poles": [name]}},
            )
            for name in SENTENCES
        ),
    ]
    for front, names in FRONTS.items():
        for weights in MIXED[front]:
            rewards = [made.reward(*pair) for pair in zip(names, weights, strict=True)]
            name = name_mixed(names, weights)
            runs.append(made.plan_run(name, name, "morlhf", {**ROUNDS, "rewards": rewards}))
        runs.append(made.plan_run("policy", f"ric-{front}", f"ric-{front}", plan_ric(made, front, online=False)))
    online = [f"ric-{front}-online" for front in FRONTS]
    later = [
        made.plan_run("policy", name, name, plan_ric(made, front, online=True))
        for name, front in zip(online, FRONTS, strict=True)
    ]
    return [runs, later]


def name_mixed(names: Sequence[str], weights: Sequence[float]) -> str:
    """The name of a policy for fixed preferences, as ``academy-0.3-entertainment-0.7``."""
    return "-".join(f"{name}-{weight:g}" for name, weight in zip(names, weights, strict=True))


def plan_multitask(out: Path) -> Json:
    """The settings of fine-tuning on all voices together, each said in the prompt (RLPHF's multitask baseline)."""
    data = {"root": str(out), "train": [{"path": "told.jsonl", "form": "rated"}], "holdout": 0.02}
    return {
        **IMITATION,
        "data": data,
        "policy": {"method": "sft", "max_length": 256},
    }


def plan_ric(made: ComparedMethods, front: str, *, online: bool) -> Json:
    """The settings of Rewards-in-Context on all answers of the data, or of the online round that goes on from there."""
    policy: Json = {"method": "ric", "max_length": 256, "prepared": str(made.out / f"prepared-{front}")}
    model: Json = IMITATION["model"]
    if online:
        policy |= {"offline": False, "online": ONLINE}
        model = {**model, "start": made.find_artifact(f"ric-{front}", "policy")}
    return {
        **IMITATION,
        "model": model,
        "data": {"eval_limit": 32, "most_dropped": 0.6},
        "policy": policy,
        "rewards": [made.reward(name, scale="raw") for name in FRONTS[front]],
        "sampling": {"count": 1, "max_tokens": 96, "max_prompt": 128, "temperature": 0.7},
    }
