"""``tureen-train import``: turn what others trained into an artifact."""

from pathlib import Path
from typing import Annotated

import typer

from tureen_train.faults import exit_on_user_error
from tureen_train.importing.new_folder import fill_folder
from tureen_train.terminal import start_log

Source = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="an adapter's or a whole model's folder")]
Out = Annotated[Path, typer.Argument(help="the artifact's folder; it must not exist yet")]
IsExpert = Annotated[bool, typer.Option("--expert", help="Import a policy expert.")]
BaseModel = Annotated[str | None, typer.Option("--base", help="The model under it: a folder, or a packaged base.")]
Objective = Annotated[str | None, typer.Option("--objective", help="What requests call its weight.")]
Family = Annotated[str | None, typer.Option("--family", help="Its policy family; by default named like the base.")]
ArtifactName = Annotated[str | None, typer.Option("--name", help="The artifact's name; by default the objective.")]
Rank = Annotated[int | None, typer.Option(min=1, help="The largest rank, where it is approximated.")]
Energy = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="The share of a weight's difference that chooses its rank; 0.95 by default."),
]
AcceptEnergy = Annotated[
    float | None,
    typer.Option("--accept-energy", min=0, max=1, help="The smallest captured share; by default as --energy."),
]
Licence = Annotated[
    list[str] | None, typer.Option("--licence", help="Its licence; by default those of the model cards. May repeat.")
]
OnDevice = Annotated[str, typer.Option("--device", help="Where the models run, as cpu or cuda.")]


def import_command(
    source: Source,
    out: Out,
    expert: IsExpert = False,
    base: BaseModel = None,
    objective: Objective = None,
    family: Family = None,
    name: ArtifactName = None,
    rank: Rank = None,
    energy: Energy = None,
    accept_energy: AcceptEnergy = None,
    licence: Licence = None,
    device: OnDevice = "cpu",
) -> None:
    """Turn an adapter or a model of others into an artifact with proven probes."""
    start_log("INFO")
    with exit_on_user_error():
        if not expert:
            raise ValueError("say what is imported: --expert")
        if base is None or objective is None:
            raise ValueError("--expert needs --base, the model under it, and --objective, the name of its weight")
        # these import torch and PEFT, which --help does not need
        from tureen_core.experts.low_rank import RankChoice
        from tureen_train.importing.expert import ExpertRequest, import_expert_artifact

        request = ExpertRequest(base, objective, family, name, RankChoice(rank, energy, accept_energy), licence or [])
        with fill_folder(out) as scratch:
            import_expert_artifact(source, scratch, request, device)
        typer.echo(f"imported {out}: verify it with tureen-serve check {out}")
