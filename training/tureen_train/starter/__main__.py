"""``python -m tureen_train.starter``: train the packaged starter artifacts, each in a process, and install them.

The four experts are one family, which learns from the installed reward models of the domains and is measured by them.
The family's second judges are trained before it; they are not packaged. One reward model also learns from the answers
of first experts, which had cheated a first reward model of its domain (see :mod:`.own_answers`).
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tureen_core.artifact import open_artifact
from tureen_train.config import read_family
from tureen_train.families.train import find_experts
from tureen_train.starter.own_answers import write_opposed
from tureen_train.starter.plans import (
    CHEATED,
    FAMILY,
    find_opposed,
    list_family_changes,
    list_judges,
    list_rewards,
    make_command,
    set_keys,
)

LARGEST = 2_000_000


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
        if folder == f"rewards/{CHEATED}" and not find_opposed(runs).is_file():
            write_opposed(data, out, runs)
        subprocess.run(make_command(folder, data, runs), check=True)
        if folder in list_rewards(runs):
            install_artifact(runs / folder / "artifact", out / folder)


def train_family(data: Path, out: Path, runs: Path) -> None:
    """Train and measure the family, and install its experts. What is finished is not done again."""
    typer.echo(f"training {FAMILY}")
    changes = list_family_changes(data, out, runs)
    subprocess.run([sys.executable, "-m", "tureen_train", "family", "starter/family", *set_keys(changes)], check=True)
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
    wanted = only or [*list_rewards(runs), *list_judges(), FAMILY]
    train_rewards(data, out, runs, [each for each in wanted if each != FAMILY])
    if FAMILY in wanted:
        train_family(data, out, runs)


if __name__ == "__main__":
    typer.run(main)
