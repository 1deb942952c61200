"""``tureen-train import``: turn what others trained into an artifact."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from tureen_core.plain.option_flags import name_flags, take_plain_flags
from tureen_core.plain.options import NO_OPTIONS, PlainOptions
from tureen_core.plain.source_text import PLACES
from tureen_train.faults import exit_on_user_error
from tureen_train.importing.new_folder import fill_folder
from tureen_train.terminal import make_console, start_log

Source = Annotated[str, typer.Argument(help=f"A model of others: {PLACES}; of experts a folder.")]
Out = Annotated[Path, typer.Argument(help="The artifact's folder.")]
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


Calibrate = Annotated[
    list[Path] | None,
    typer.Option("--calibrate", help="Pairs to calibrate a reward model on, and to evaluate it. May repeat."),
]
FromFormat = Annotated[
    Literal["safetensors", "pickle"], typer.Option("--from", help="The format of a reward model's weights.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an artifact that is there already.")]


@take_plain_flags("tureen-train")
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
    calibrate: Calibrate = None,
    stored: FromFormat = "safetensors",
    overwrite: Overwrite = False,
    plain: PlainOptions = NO_OPTIONS,
) -> None:
    """Turn a reward model of others into an artifact with proven probes; with --expert, a policy expert."""
    start_log("INFO")
    with exit_on_user_error():
        if expert:
            told = [name_flags()[each] for each in plain.model_fields_set]
            told += ["--calibrate"] * bool(calibrate) + ["--from"] * (stored == "pickle")
            if told:
                raise ValueError(f"{told[0]} is for reward models: leave it out, or leave out --expert")
            if base is None or objective is None:
                raise ValueError("--expert needs --base, the model under it, and --objective, the name of its weight")
            # these import torch and PEFT, which --help does not need
            from tureen_core.experts.low_rank import RankChoice
            from tureen_train.importing.expert import ExpertRequest, import_expert_artifact

            if not Path(source).is_dir():
                raise ValueError(f"there is no folder {source}")
            choice = RankChoice(rank, energy, accept_energy)
            request = ExpertRequest(base, objective, family, name, choice, licence or [])
            with fill_folder(out, overwrite) as scratch:
                import_expert_artifact(Path(source), scratch, request, device)
        else:
            given = {"--base": base, "--objective": objective, "--family": family, "--rank": rank, "--energy": energy}
            given["--accept-energy"] = accept_energy
            wrong = next((flag for flag, value in given.items() if value is not None), None)
            if wrong is not None:
                instead = "; for the names of rewards, give --objectives" if wrong == "--objective" else ""
                raise ValueError(f"{wrong} is for experts: give --expert, or leave it out{instead}")
            _import_reward(source, out, RewardFlags(plain, name, licence or [], calibrate or [], stored, overwrite))
        typer.echo(f"imported {out}: verify it with tureen-serve check {out}")


@dataclass(frozen=True)
class RewardFlags:
    """The flags of a reward model."""

    plain: PlainOptions
    name: str | None
    licences: Sequence[str]
    calibrate: Sequence[Path]
    stored: str
    overwrite: bool


def _import_reward(source: str, out: Path, flags: RewardFlags) -> None:
    """Import a reward model, and calibrate it where files are given.

    Raises:
        ValueError: the model, a file or a flag cannot be used.
    """
    from transformers.utils import logging

    from tureen_core.plain.locate import locate_source
    from tureen_core.plain.pickles import convert_pickles
    from tureen_train.evaluation.evaluation_page import make_summary
    from tureen_train.importing.calibrated import calibrate_import
    from tureen_train.importing.reward import RewardRequest, import_reward_artifact

    logging.set_verbosity_error()  # each load would list the tensors that it does not read
    request = RewardRequest(flags.plain, flags.name, flags.licences)
    with fill_folder(out, flags.overwrite) as scratch:
        folder = locate_source(source, pickles=flags.stored == "pickle")
        if flags.stored == "pickle":
            with tempfile.TemporaryDirectory(prefix=".pickles-", dir=scratch.parent) as beside:
                import_reward_artifact(source, convert_pickles(folder, Path(beside) / folder.name), scratch, request)
        else:
            import_reward_artifact(source, folder, scratch, request)
        if flags.calibrate:
            report = out.with_name(f"{out.name}-evaluation")
            calibrated = calibrate_import(scratch, flags.calibrate, report)
            for line in calibrated.describe_scales():
                typer.echo(line)
            for each in calibrated.evaluations:
                make_console().print(make_summary(each))
                typer.echo(f"the report: {each.folder / 'report.html'}")
