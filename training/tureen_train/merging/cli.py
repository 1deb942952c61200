"""``tureen-train merge``: several experts as one LoRA or one checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from tureen.records.schema import BadOption
from tureen_train.config.weights import parse_weights
from tureen_train.faults import exit_on_user_error
from tureen_train.importing.new_folder import fill_folder
from tureen_train.terminal import start_log

Out = Annotated[Path, typer.Argument(help="The new folder.")]
Named = Annotated[list[str], typer.Option("--expert", help="NAME=FOLDER: an artifact or a PEFT folder. Repeat it.")]
Weights = Annotated[str, typer.Option("--weights", help="As academy=0.6+business=0.4; any numbers.")]
How = Annotated[
    Literal["delta", "factor", "ties", "dare", "dare-ties", "magnitude"],
    typer.Option("--how", help="The rule. delta is the weighted sum; factor averages A and B of equal ranks."),
]
Density = Annotated[float, typer.Option(help="The share of values that ties, dare and magnitude keep.")]
Seed = Annotated[int, typer.Option(help="For dare's random choice.")]
To = Annotated[Literal["lora", "checkpoint"], typer.Option("--to", help="What is written.")]
Base = Annotated[str | None, typer.Option("--base", help="The experts' base, if they do not name it.")]
Rank = Annotated[int | None, typer.Option(min=1, help="The largest rank of a LoRA that approximates the result.")]
Energy = Annotated[float | None, typer.Option(min=0, max=1, help="Or the energy that each module captures; 0.95.")]
AcceptEnergy = Annotated[float | None, typer.Option(min=0, max=1, help="The smallest captured share of all.")]
Dtype = Annotated[Literal["float32", "bfloat16"] | None, typer.Option(help="Of the written weights.")]


def merge_command(
    out: Out,
    expert: Named,
    weights: Weights,
    how: How = "delta",
    density: Density = 0.5,
    seed: Seed = 0,
    to: To = "lora",
    base: Base = None,
    rank: Rank = None,
    energy: Energy = None,
    accept_energy: AcceptEnergy = None,
    dtype: Dtype = None,
) -> None:
    """Merge experts of one base into one LoRA in PEFT's format, or into a whole checkpoint."""
    start_log("INFO")
    with exit_on_user_error():
        # these import torch and PEFT, which --help does not need
        import torch

        from tureen_core.experts.low_rank import RankChoice
        from tureen_train.merging.merge import MergePlan, read_experts, write_checkpoint, write_lora

        mix = parse_weights(weights, "--weights")
        folders = _read_names(expert)
        unknown = next((name for name in mix if name not in folders), None)
        if unknown is not None:
            raise BadOption(f"--weights: there is no --expert {unknown}=FOLDER; there are {', '.join(folders)}")
        plan = MergePlan(
            mix, how, density, seed, RankChoice(rank, energy, accept_energy), getattr(torch, dtype) if dtype else None
        )
        with fill_folder(out) as scratch:
            found = read_experts(folders, base)
            if to == "checkpoint":
                write_checkpoint(found, plan, scratch)
                typer.echo("merged into a checkpoint")
            else:
                figures = write_lora(found, plan, scratch)
                typer.echo(f"merged into a LoRA of rank {figures['rank']:g}, which holds {figures['energy']:.4f} of it")
            (scratch / "README.md").write_text(_write_card(found.base, mix, how, found.licences), encoding="utf-8")
    use = f"--base {out}" if to == "checkpoint" else f"--base {found.base} --expert merged={out}"
    typer.echo(f"wrote {out}: serve it with tureen-serve {use}")


def _read_names(texts: list[str]) -> dict[str, Path]:
    """Read ``NAME=FOLDER``.

    Raises:
        BadOption: a text has no name or no folder, or a name occurs twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise BadOption(f"--expert {text!r}: write it as NAME=FOLDER")
        if name in found:
            raise BadOption(f"--expert {name}: two have this name; rename one")
        if not Path(folder).is_dir():
            raise BadOption(f"--expert {name}: there is no folder {folder}")
        found[name] = Path(folder)
    return found


def _write_card(base: str, weights: Mapping[str, float], how: str, licences: Sequence[str]) -> str:
    """Write the model card: base, rule, weights, licences."""
    mix = " + ".join(f"{weight:g} · {name}" for name, weight in weights.items())
    lines = [f"# Merged experts of `{Path(base).name}`", "", f"{mix}, merged by `{how}`.", ""]
    lines += [f"Licence of the experts: {licence}" for licence in licences]
    return "\n".join(lines).rstrip() + "\n"
