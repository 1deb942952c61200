"""``python -m tureen_train.reprove FOLDER…``: read the probes of artifacts again and write them into ``tureen.json``.

Artifacts of an earlier version lack the readings by which a server notices a lost adapter; this adds them. Weights,
versions and scores do not change.
"""

from pathlib import Path
from typing import Annotated

import typer

from tureen_core.artifact import Artifact, Manifest, open_artifact, seal_artifact
from tureen_core.base import CACHE, locate_base
from tureen_core.experts.expert_probes import record_expert_probes
from tureen_core.experts.expert_reader import ExpertReader
from tureen_train.faults import exit_on_user_error
from tureen_train.networks.reward_reader import RewardReader
from tureen_train.runs import reward_artifact
from tureen_train.settings import set_offline

app = typer.Typer(add_completion=False)


def reprove_artifact(folder: Path) -> Artifact:
    """Read an artifact's probes again in float32 and seal it anew.

    Raises:
        ArtifactError: it does not verify, or its probes cannot show that its adapter is there.
    """
    artifact = open_artifact(folder)
    return seal_artifact(artifact.folder, _record(artifact))


def _record(artifact: Artifact) -> Manifest:
    manifest = artifact.manifest
    base = None if manifest.base is None else locate_base(manifest.base.model, CACHE)
    if manifest.kind == "reward":
        reader = RewardReader(artifact.folder, base, manifest.reading, manifest.rows)
        return reward_artifact.record_probes(manifest, reader, trained=False)
    if base is None:
        return manifest
    return record_expert_probes(manifest, ExpertReader(artifact.folder, base, manifest.reading))


@app.command()
def main(folders: Annotated[list[Path], typer.Argument(help="The folders of the artifacts.")]) -> None:
    """Read the probes of artifacts again and write the readings into tureen.json."""
    set_offline()
    with exit_on_user_error():
        for folder in folders:
            typer.echo(f"{folder}: {len(reprove_artifact(folder).manifest.probes)} probes read")


if __name__ == "__main__":
    app()
