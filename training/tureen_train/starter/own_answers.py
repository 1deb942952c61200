"""The answers by which first experts cheated a first reward model, set against the data's best ones."""

import subprocess
import sys
from pathlib import Path

from tureen_train.config import read_family
from tureen_train.families.train import train_stage
from tureen_train.starter.plans import (
    ANSWERS_BY_DOMAIN,
    CHEATED,
    find_opposed,
    list_family_changes,
    make_command,
    set_keys,
)

WRITERS = ("academy", CHEATED)  # the experts that raised the first reward model most
ANSWERS = "starter/own-answers"
STAGES = 2  # of the first expert that cheats; the packaged one has more
CUT = 96  # tokens: where the experts' answers end


def write_opposed(data: Path, out: Path, runs: Path) -> None:
    """Train the first reward model and experts, let these and the base answer the training prompts, and oppose them.

    What is finished is not done again.

    Args:
        out: has the installed reward models of the other domains.
    """
    first = runs / "first"
    reward = first / "rewards" / CHEATED / "artifact"
    if not reward.is_dir():
        subprocess.run(make_command(f"first/rewards/{CHEATED}", data, runs), check=True)
    changes = [
        *list_family_changes(data, out, first),
        f"objectives.{CHEATED}.reward.path={reward}",
        f"objectives.{CHEATED}.stages={STAGES}",
    ]
    family = read_family("starter/family", changes)
    written = [_sample("base", [], data, first)]
    for name in WRITERS:
        for stage in range(family.count_stages(name)):
            expert = train_stage(family.plan_expert(name, stage), f"{name}, stage {stage + 1}")
        written.append(_sample(name, [f"model.start={expert}"], data, first))
    words = [sys.executable, "-m", "tureen_train", "transform", "own-answers", str(data / ANSWERS_BY_DOMAIN)]
    words += [str(find_opposed(runs)), "--domain", CHEATED, "--max-tokens", str(CUT), "--scramble", "7"]
    words += ["--base", str(family.expert["model"]["base"])]
    subprocess.run([*words, *(word for each in written for word in ("--answers", str(each)))], check=True)


def _sample(name: str, changes: list[str], data: Path, folder: Path) -> Path:
    """Let one policy answer the training prompts. Returns the file of its answers."""
    target = folder / f"{name}.jsonl"
    words = [sys.executable, "-m", "tureen_train", "sample", ANSWERS, str(target)]
    subprocess.run([*words, *set_keys([*changes, f"data.root={data}"])], check=True)
    return target
