"""``tureen-train sample``: the answers of a policy in a file."""

from pathlib import Path
from typing import Annotated

import typer

from tureen_train.config import ExpertRun, RecipeError, read_recipe
from tureen_train.faults import exit_on_user_error
from tureen_train.terminal import show_progress, start_log


def sample_command(
    recipe: Annotated[str, typer.Argument(help="the recipe of an expert: a file, or the name of a packaged one")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="the file for the answers, JSON Lines")],
    change: Annotated[
        list[str] | None, typer.Option("--set", help="change one key of the recipe, as sampling.count=2")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew, whatever OUT holds.")] = False,
) -> None:
    """Let a recipe's policy answer its prompts, without training it. A run that was broken goes on.

    The keys data, preferences, model, sampling and optimisation.seed decide what is written.
    """
    from tureen_train.policies.answer_file import write_answers  # seconds to import: not for --help

    start_log("INFO")
    with exit_on_user_error(), show_progress(transient=True) as progress:
        run = read_recipe(recipe, change or [])
        if not isinstance(run, ExpertRun):
            raise RecipeError(f"kind: {run.kind} writes no answers; name the recipe of an expert")
        task = progress.add_task("prompts", total=None)
        counts = write_answers(run, target, overwrite, lambda count: progress.advance(task, count))
    typer.echo(
        f"wrote {counts.answers} answers to {counts.prompts} prompts to {target};"
        f" of them {counts.unfinished} unfinished, {counts.empty} empty"
    )
