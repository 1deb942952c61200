"""``python -m tureen_train.starter``: train the packaged starter artifacts, each in a process, and install them.

The four experts are one family, which learns from the installed reward models of the domains and is measured by them.
The family's second judges are trained before it; they are not packaged.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tureen_core.artifact import open_artifact
from tureen_train.config import read_family
from tureen_train.families.train import find_experts

DOMAINS = ("academy", "business", "entertainment", "literature")
# harmless is trained on fewer pairs; the packaged artifact is made by exactly these options
DIALOGUES = {"helpful": (), "harmless": ("model.head=random", "data.limit=320", "data.eval_limit=160")}
FAMILY = "family"
LICENCE = "helpful and harmless (DSP): CC BY-NC 4.0, non-commercial; the dialogues are hh-rlhf's, MIT"
LARGEST = 2_000_000


def list_rewards() -> dict[str, list[str]]:
    """Map the folder of each packaged reward model to its arguments of ``tureen-train run``."""
    found = {f"rewards/{name}": _name_domain(name) for name in DOMAINS}
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


def _name_domain(name: str) -> list[str]:
    return [
        "starter/domain-reward",
        f"name={name}",
        *(f"data.{each}.domain={name}" for each in ("train.0", "eval.domains")),
    ]


def make_command(folder: str, data: Path, runs: Path) -> list[str]:
    """Make the command line that trains one reward model."""
    recipe, *changes = {**list_rewards(), **list_judges()}[folder]
    changes = [*changes, f"data.root={data}", f"output={runs / folder}"]
    return [sys.executable, "-m", "tureen_train", "run", recipe, "--overwrite", *_set(changes)]


def list_family_changes(data: Path, out: Path, runs: Path) -> list[str]:
    """List the changes of the family's recipe: where its data, rewards and judges are."""
    changes = [f"expert.data.root={data}", f"output={runs / FAMILY}"]
    for name in DOMAINS:
        changes += [
            f"objectives.{name}.reward.path={out / 'rewards' / name}",
            f"objectives.{name}.judge.path={runs / 'judges' / name / 'artifact'}",
        ]
    return changes


def _set(changes: list[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def install_artifact(artifact: Path, target: Path) -> None:
    """Verify an artifact and copy it into the package.

    Raises:
        ArtifactError: the artifact does not verify.
        ValueError: its weights are too large for the package.
    """
    open_artifact(artifact)
    size = sum(path.stat().st_size for path in artifact.glob("*.safetensors"))
    if size > LARGEST:
        raise ValueError(f"{artifact}: {size} bytes of weights, but a starter artifact may have {LARGEST} at most")
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(artifact, target)


def train_rewards(data: Path, out: Path, runs: Path, folders: list[str]) -> None:
    """Train reward models, and install those that are packaged."""
    for folder in folders:
        typer.echo(f"training {folder}")
        subprocess.run(make_command(folder, data, runs), check=True)
        if folder in list_rewards():
            install_artifact(runs / folder / "artifact", out / folder)


def train_family(data: Path, out: Path, runs: Path) -> None:
    """Train and measure the family, and install its experts. What is finished is not done again."""
    typer.echo(f"training {FAMILY}")
    changes = list_family_changes(data, out, runs)
    subprocess.run([sys.executable, "-m", "tureen_train", "family", "starter/family", *_set(changes)], check=True)
    for name, artifact in find_experts(read_family("starter/family", changes)).items():
        install_artifact(artifact, out / "experts" / name)


def main(
    data: Annotated[Path, typer.Option(help="the folder of the public data files")] = Path("../shared/data"),
    out: Annotated[Path, typer.Option(help="the folder for the artifacts")] = Path("service/tureen_serve/starter"),
    runs: Annotated[Path, typer.Option(help="the folder for the runs")] = Path("runs/starter"),
    only: Annotated[
        list[str] | None, typer.Option(help="only this one, as rewards/academy or family; may be repeated")
    ] = None,
) -> None:
    """Train the starter artifacts with fixed seeds and install them."""
    wanted = only or [*list_rewards(), *list_judges(), FAMILY]
    train_rewards(data, out, runs, [each for each in wanted if each != FAMILY])
    if FAMILY in wanted:
        train_family(data, out, runs)


if __name__ == "__main__":
    typer.run(main)
