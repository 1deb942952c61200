"""``tureen-train family``: train, measure and export a policy family."""

from pathlib import Path
from typing import Annotated

import typer

from tureen_train.config import FamilyRun, format_recipe, read_family
from tureen_train.faults import exit_on_user_error
from tureen_train.terminal import show_progress, start_log

RecipeName = Annotated[str, typer.Argument(help="a family's recipe file, or the name of a packaged one")]
Set = Annotated[list[str] | None, typer.Option("--set", help="change one key of the recipe, as measure.count=24")]
MeasureOnly = Annotated[
    bool, typer.Option("--measure-only", help="Measure experts that are trained already; train none.")
]


def family_command(recipe: RecipeName, change: Set = None, measure_only: MeasureOnly = False) -> None:
    """Train the experts of a family, measure them and their sweeps, and export a folder to serve.

    What is finished is not done again, so the same command goes on after a break.
    """
    start_log("INFO")
    with exit_on_user_error():
        family = read_family(recipe, change or [])
    with exit_on_user_error(before="\n"):
        # these import torch, which --help does not need
        from tureen_core.artifact import open_artifact
        from tureen_train.families.export import SERVER, export_family, stack_experts
        from tureen_train.families.measure import check_rewards
        from tureen_train.families.train import find_experts, train_experts

        check_rewards(family)

        folder = Path(family.output)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "family.yaml").write_text(format_recipe(family), encoding="utf-8")
        experts = find_experts(family) if measure_only else train_experts(family)
        stack_experts([open_artifact(each) for each in experts.values()])
        export_family(family, experts, folder / "family")
        report = _measure(family, experts, folder / "measured")
    typer.echo(f"the report: {report}")
    typer.echo(f"serve it with tureen-serve --config {folder / 'family' / SERVER}")


def _measure(family: FamilyRun, experts: dict[str, Path], folder: Path) -> Path:
    """Measure a family and write the report."""
    from tureen_train.families.measure import measure_family
    from tureen_train.families.report import write_family_report

    with show_progress() as progress:
        task = progress.add_task(f"measuring {family.name}", total=None)
        measured = measure_family(
            family, experts, folder, lambda done, total: progress.update(task, completed=done, total=total)
        )
    return write_family_report(measured, folder)
