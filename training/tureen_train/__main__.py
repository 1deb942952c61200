"""The commands of ``tureen-train``. A run trains one recipe."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.table import Table

from tureen.records.reading import parse_renames
from tureen_train.config import (
    UNNAMED,
    OwnData,
    Recipe,
    RecipeError,
    describe_recipe,
    format_recipe,
    list_recipes,
    read_any,
    read_recipe,
)
from tureen_train.evaluation.cli import (
    compare_command,
    evaluate_command,
    margins_command,
    sweep_command,
    weights_command,
)
from tureen_train.families.cli import family_command
from tureen_train.faults import exit_on_user_error
from tureen_train.front.cli import front_command
from tureen_train.importing.cli import import_command
from tureen_train.judge.cli import judge
from tureen_train.kinds import estimate_run, export_run, train_run
from tureen_train.merging.cli import merge_command
from tureen_train.policies.cli import sample_command
from tureen_train.records.cli import convert_command
from tureen_train.records.options import Renames
from tureen_train.reports.cli import watch_command
from tureen_train.runs.folder import claim_folder
from tureen_train.settings import count_processes, hide_progress_bars, read_rank, set_offline
from tureen_train.terminal import make_console, start_log
from tureen_train.transforms.cli import transform
from tureen_train.transforms.similarity import similarity_command

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("convert")(convert_command)
app.command("import")(import_command)
app.command("family")(family_command)
app.command("front")(front_command)
app.command("merge")(merge_command)
app.command("sample")(sample_command)
app.add_typer(transform, name="transform")
app.add_typer(judge, name="judge")
app.command("evaluate")(evaluate_command)
app.command("compare")(compare_command)
app.command("sweep")(sweep_command)
app.command("weights")(weights_command)
app.command("similarity")(similarity_command)
app.command("margins")(margins_command)
app.command("watch")(watch_command)

RecipeName = Annotated[str, typer.Argument(help="a recipe file, or the name of a packaged recipe")]
Data = Annotated[
    list[Path] | None,
    typer.Option("--data", help="Your own file, in place of the recipe's data: any form, also CSV. May be repeated."),
]
BaseName = Annotated[str | None, typer.Option("--base", help="The model to start from; short for --set model.base.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="change one key of the recipe, as optimisation.epochs=2")]


@app.callback()
def prepare() -> None:
    """Train reward models and experts, and evaluate reward models."""
    set_offline()
    if not sys.stderr.isatty():
        hide_progress_bars()


@app.command()
def run(
    recipe: RecipeName,
    data: Data = None,
    base: BaseName = None,
    renames: Renames = None,
    change: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the artifact of another run in the same folder.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell how many answers and requests to judges the recipe will cost.")
    ] = False,
) -> None:
    """Train by a recipe and export the result as an artifact."""
    start_log("INFO" if read_rank() == 0 else "WARNING")
    with exit_on_user_error():
        resolved = _read_given(recipe, data or [], base, renames or [], change or [])
        if dry_run:
            _tell_cost(resolved)
            return
    with exit_on_user_error(before="\n"):
        _train(resolved, resume, overwrite)
    if count_processes() and resolved.scale.zero:
        _leave()


def _read_given(
    recipe: str, files: Sequence[Path], base: str | None, renames: list[str], changes: Sequence[str]
) -> Recipe:
    """Read a recipe with what the command line names beside it."""
    if renames and not files:
        raise RecipeError("--map is for the columns of --data; in a recipe write `map` beside the file's path")
    own = OwnData(files, parse_renames(renames)) if files else None
    resolved = read_recipe(recipe, [*([f"model.base={base}"] if base else []), *changes], own)
    if any(source.path == UNNAMED for source in resolved.data.train):
        raise RecipeError(f"{recipe} is for your own data: name it with --data FILE")
    return resolved


def _tell_cost(recipe: Recipe) -> None:
    rows = estimate_run(recipe)
    if not rows:
        typer.echo(f"{recipe.name}: its model writes no answers, so it asks no judge")
        return
    table = Table("what it costs", title=recipe.name)
    table.add_column("", justify="right")
    for row in rows:
        table.add_row(*row)
    make_console().print(table)


def _leave() -> NoReturn:
    """End a launcher's process at once: all is saved, and DeepSpeed's threads can abort a normal shutdown."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _train(recipe: Recipe, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise RecipeError("--resume and --overwrite exclude each other")
    claim_folder(Path(recipe.output), resume, overwrite)
    if read_rank() == 0:
        Path(recipe.output).mkdir(parents=True, exist_ok=True)
        (Path(recipe.output) / "recipe.yaml").write_text(format_recipe(recipe), encoding="utf-8")
    artifact = train_run(recipe, resume)
    if artifact is not None:
        make_console().print(_metrics_table(recipe.name, artifact.manifest.training.metrics))
        typer.echo(f"exported {artifact.folder}: verify it with tureen-serve check {artifact.folder}")
        if artifact.manifest.kind in ("reward", "expert"):
            typer.echo(f"serve it with tureen-serve --{artifact.manifest.kind} {artifact.folder}")
        elif artifact.manifest.kind == "policy" and artifact.manifest.steering is not None:
            typer.echo(f"serve it with tureen-serve --policy {artifact.folder}")
        elif artifact.manifest.kind == "policy":
            typer.echo(f"serve it with tureen-serve --base {artifact.folder}, or name it in model.base of a recipe")


def _metrics_table(name: str, metrics: Mapping[str, Mapping[str, float | None]]) -> Table:
    table = Table("figure", title=f"{name}, held out")
    for file in metrics:
        table.add_column(file, justify="right")
    for key in sorted({key for each in metrics.values() for key in each}):
        values = [each.get(key) for each in metrics.values()]
        table.add_row(key, *["–" if value is None else f"{value:.4g}" for value in values])
    return table


@app.command()
def export(folder: Annotated[Path, typer.Argument(help="the folder of a finished run")]) -> None:
    """Export a finished run again, for example after an upgrade."""
    with exit_on_user_error():
        typer.echo(f"exported {export_run(folder).folder}")


@app.command()
def show(recipe: RecipeName, change: Set = None) -> None:
    """Print a recipe with all defaults filled in."""
    with exit_on_user_error():
        typer.echo(format_recipe(read_any(recipe, change or [])), nl=False)


@app.command()
def recipes() -> None:
    """List the packaged recipes, and what each is for."""
    names = list_recipes()
    width = max(map(len, names))
    for name in names:
        typer.echo(f"{name:<{width}}  {describe_recipe(name)}")


if __name__ == "__main__":
    app()
