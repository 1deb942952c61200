"""What is trained for the package: the recipe of each artifact, and its changes. Pure."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

DOMAINS = ("academy", "business", "entertainment", "literature")
# harmless is trained on fewer pairs; the packaged artifact is made by exactly these options
DIALOGUES = {"helpful": (), "harmless": ("model.head=random", "data.limit=320", "data.eval_limit=160")}
FAMILY = "family"
LICENCE = "helpful and harmless (DSP): CC BY-NC 4.0, non-commercial; the dialogues are hh-rlhf's, MIT"
LICENCE_OF_DOMAINS = "domain_specific_preference (DSP): CC BY-NC 4.0, non-commercial"
ANSWERS_BY_DOMAIN = "dsp/domain_specific_preference.test.json"
CHEATED = "business"  # a reward model of its data alone gave high rewards to nonsense


def list_rewards(runs: Path) -> dict[str, list[str]]:
    """Map the folder of each packaged reward model to its arguments of ``tureen-train run``."""
    found = {f"rewards/{name}": _name_domain(name) for name in DOMAINS}
    found[f"rewards/{CHEATED}"] += _add_opposed(find_opposed(runs))
    for name, changes in DIALOGUES.items():
        path = f"data.train.0.path=dsp/{name}.test.json"
        licences = f"licences={json.dumps([LICENCE])}"  # another file clears those of the recipe
        found[f"rewards/{name}"] = ["starter/dialogue-reward", f"name={name}", path, licences, *changes]
    return found


def list_judges() -> dict[str, list[str]]:
    """Map the folder of each second judge to its arguments of ``tureen-train run``.

    A judge learns the domain's answers against the normal ones only, of 120 prompts, with another seed.
    """
    found = {}
    for name in DOMAINS:
        others = [each for each in DOMAINS if each != name]
        changes = (
            "data.limit=120",
            "data.eval_limit=40",
            "model.precision=fp32",
            "optimisation.epochs=1",
            "optimisation.seed=11",
        )
        found[f"judges/{name}"] = [*_name_domain(name), f"data.train.0.exclude={others}", *changes]
    return found


def list_first() -> dict[str, list[str]]:
    """Map the folder of the first reward model of the domain whose experts cheated it to its arguments."""
    return {f"first/rewards/{CHEATED}": _name_domain(CHEATED)}


def find_opposed(runs: Path) -> Path:
    """The file that sets the data's best answers above those of the experts that cheated."""
    return (runs / "first" / "opposed.jsonl").resolve()


def _add_opposed(opposed: Path) -> list[str]:
    files = [
        {"path": ANSWERS_BY_DOMAIN, "domain": CHEATED, "licence": LICENCE_OF_DOMAINS},
        {"path": str(opposed), "licence": LICENCE_OF_DOMAINS},
    ]
    return [f"data.train={json.dumps(files)}", "optimisation.epochs=0.8"]


def _name_domain(name: str) -> list[str]:
    return [
        "starter/domain-reward",
        f"name={name}",
        *(f"data.{each}.domain={name}" for each in ("train.0", "eval.domains")),
    ]


def make_command(folder: str, data: Path, runs: Path) -> list[str]:
    """Make the command line that trains one reward model."""
    recipe, *changes = {**list_rewards(runs), **list_first(), **list_judges()}[folder]
    changes = [*changes, f"data.root={data}", f"output={runs / folder}"]
    return [sys.executable, "-m", "tureen_train", "run", recipe, "--overwrite", *set_keys(changes)]


def list_family_changes(data: Path, out: Path, runs: Path) -> list[str]:
    """List the changes of the family's recipe: where its data, rewards and judges are."""
    changes = [f"expert.data.root={data}", f"output={runs / FAMILY}"]
    for name in DOMAINS:
        changes += [
            f"objectives.{name}.reward.path={out / 'rewards' / name}",
            f"objectives.{name}.judge.path={runs / 'judges' / name / 'artifact'}",
        ]
    return changes


def set_keys(changes: Sequence[str]) -> list[str]:
    """Make options of a command of changes."""
    return [word for change in changes for word in ("--set", change)]
