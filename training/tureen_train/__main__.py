"""``tureen-train``: train, show and convert. One recipe a run."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from tureen_train.config import RecipeError, RewardRun, Run, dump, packaged, read_recipe
from tureen_train.records.cli import convert
from tureen_train.settings import offline, rank

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(convert)
console = Console()

Recipe = Annotated[str, typer.Argument(help="a recipe file, or the name of a packaged one")]
Set = Annotated[list[str] | None, typer.Option("--set", help="change one key, as optimisation.epochs=2")]


@app.command()
def run(
    recipe: Recipe,
    change: Set = None,
    resume: Annotated[bool, typer.Option(help="go on from the last checkpoint")] = False,
) -> None:
    """Train what a recipe describes and export it as an artifact."""
    offline()
    logging.basicConfig(level="INFO", format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    for noisy in ("httpx", "filelock", "fsspec"):
        logging.getLogger(noisy).setLevel("WARNING")
    try:
        artifact = _train(recipe, change or [], resume)
    except (RecipeError, ValueError, RuntimeError, FloatingPointError) as error:
        console.print(f"[red]{type(error).__name__}[/]: {error}", highlight=False)
        raise typer.Exit(1) from error
    if artifact is not None:
        console.print(f"[green]exported[/] {artifact}: verify it with tureen-serve check {artifact}")


def _train(source: str, changes: list[str], resume: bool) -> Path | None:
    recipe = read_recipe(source, changes)
    if rank() == 0:
        Path(recipe.output).mkdir(parents=True, exist_ok=True)
        (Path(recipe.output) / "recipe.yaml").write_text(dump(recipe))
    if isinstance(recipe, RewardRun):
        from tureen_train.rewards.run import train_reward  # seconds to import: not for `show`

        artifact = train_reward(recipe, resume)
    else:
        from tureen_train.policies.run import train_expert

        artifact = train_expert(recipe, resume)
    if artifact is None:
        return None
    _tell(recipe, artifact.manifest.training.metrics)
    return artifact.folder


def _tell(recipe: Run, metrics: dict[str, dict[str, float]]) -> None:
    table = Table(title=f"{recipe.name}, held out")
    table.add_column("figure")
    for name in metrics:
        table.add_column(name, justify="right")
    for key in sorted({key for each in metrics.values() for key in each}):
        values = [each.get(key) for each in metrics.values()]
        table.add_row(key, *["–" if value is None else f"{value:.4g}" for value in values])
    console.print(table)


@app.command()
def export(folder: Annotated[Path, typer.Argument(help="a finished run's folder")]) -> None:
    """Write a finished run's artifact again, as after an upgrade."""
    offline()
    from tureen_train.export import export as write  # seconds to import: not for `show`

    try:
        console.print(f"[green]exported[/] {write(folder).folder}")
    except (RecipeError, ValueError) as error:
        console.print(f"[red]{type(error).__name__}[/]: {error}", highlight=False)
        raise typer.Exit(1) from error


@app.command()
def show(recipe: Recipe, change: Set = None) -> None:
    """Print a recipe with every default filled in."""
    try:
        console.print(dump(read_recipe(recipe, change or [])), highlight=False, markup=False)
    except RecipeError as error:
        console.print(f"[red]RecipeError[/]: {error}", highlight=False)
        raise typer.Exit(1) from error


@app.command()
def recipes() -> None:
    """List the packaged recipes."""
    for name in packaged():
        console.print(name, highlight=False)


if __name__ == "__main__":
    app()
