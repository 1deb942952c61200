"""``python -m tureen_train.starter``: train the packaged starter artifacts, each in a process, and install them."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tureen_core.artifact import open_artifact

DOMAINS = ("academy", "business", "entertainment", "literature")
# harmless is trained on fewer pairs; the packaged artifact is made by exactly these options
DIALOGUES = {"helpful": (), "harmless": ("model.head=random", "data.limit=320", "data.eval_limit=160")}
LARGEST = 2_000_000


def list_jobs() -> dict[str, list[str]]:
    """Map the folder of each starter artifact to its arguments of ``tureen-train run``."""
    found: dict[str, list[str]] = {}
    for name in DOMAINS:
        domains = [f"data.train.0.domain={name}", f"data.eval.domains.domain={name}"]
        found[f"rewards/{name}"] = ["starter/domain-reward", f"name={name}", *domains]
    for name, changes in DIALOGUES.items():
        path = f"data.train.0.path=dsp/{name}.test.json"
        found[f"rewards/{name}"] = ["starter/dialogue-reward", f"name={name}", path, *changes]
    for name in DOMAINS:
        found[f"experts/{name}"] = ["starter/domain-expert", f"name={name}", f"data.train.0.domain={name}"]
    return found


def make_command(folder: str, data: Path, runs: Path) -> list[str]:
    """Make the command line that trains one starter artifact."""
    recipe, *changes = list_jobs()[folder]
    changes = [*changes, f"data.root={data}", f"output={runs / folder}"]
    sets = [word for change in changes for word in ("--set", change)]
    return [sys.executable, "-m", "tureen_train", "run", recipe, "--overwrite", *sets]


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


def main(
    data: Annotated[Path, typer.Option(help="the folder of the public data files")] = Path("../shared/data"),
    out: Annotated[Path, typer.Option(help="the folder for the artifacts")] = Path("service/tureen_serve/starter"),
    runs: Annotated[Path, typer.Option(help="the folder for the runs")] = Path("runs/starter"),
    only: Annotated[list[str] | None, typer.Option(help="only this one, as rewards/academy; may be repeated")] = None,
) -> None:
    """Train the starter artifacts with fixed seeds and install them."""
    for folder in only or list_jobs():
        typer.echo(f"training {folder}")
        subprocess.run(make_command(folder, data, runs), check=True)
        install_artifact(runs / folder / "artifact", out / folder)


if __name__ == "__main__":
    typer.run(main)
