"""``tureen-train front``: measure ways of personalising on the same prompts, at the same preferences."""

from pathlib import Path
from typing import Annotated

import typer

from tureen_train.config import format_recipe, read_front
from tureen_train.faults import exit_on_user_error
from tureen_train.terminal import show_progress, start_log

RecipeName = Annotated[str, typer.Argument(help="a front's recipe file, or the name of a packaged one")]
Set = Annotated[list[str] | None, typer.Option("--set", help="change one key of the recipe, as count=24")]
Output = Annotated[
    Path | None, typer.Option("--out", help="the folder of the measurement; by default the recipe's `output`")
]
Count = Annotated[int | None, typer.Option("--limit", min=2, help="the number of prompts, instead of `count`")]


def front_command(recipe: RecipeName, change: Set = None, out: Output = None, limit: Count = None) -> None:
    """Measure ways of personalising: rewards, Pareto front, hypervolume, win rates, texts and cost, on one page.

    What is finished is not done again, so the same command goes on after a break.
    """
    start_log("INFO")
    with exit_on_user_error():
        changes = [*(change or []), *([f"count={limit}"] if limit else [])]
        run = read_front(recipe, changes)
    with exit_on_user_error(before="\n"):
        from tureen_train.front.measure import FrontMeasurer  # seconds to import: not for --help
        from tureen_train.front.report import write_front_report

        folder = out or Path(run.output)
        with show_progress() as progress:
            task = progress.add_task(f"measuring {run.name}", total=None)
            measured = FrontMeasurer(
                run,
                folder,
                lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
            ).measure()
        (folder / "recipe.yaml").write_text(format_recipe(run), encoding="utf-8")
        report = write_front_report(measured, folder)
    typer.echo(f"the page: {report}")
