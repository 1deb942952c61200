"""Flags and report shared by ``tureen label`` and ``tureen-serve label``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tureen.errors import TureenError
from tureen.labelling.recipe import Form, Pairing, Recipe, Ties
from tureen.labelling.tally import Tally
from tureen.labelling.target_files import TargetFiles

Format = Annotated[
    Form,
    typer.Option(
        "--format", help="The format of the rows; trl, text-score and rewardbench are read by trainers and benchmarks."
    ),
]
Pairs = Annotated[Pairing, typer.Option("--pairs", help="Which pairs of an item's candidates become rows.")]
OnTies = Annotated[Ties, typer.Option("--ties", help="Keep ties, drop them, or mark them in a column.")]
TieMargin = Annotated[float, typer.Option(help="A margin up to this value is a tie.")]
MinMargin = Annotated[float, typer.Option(help="Drop pairs with a smaller margin.")]
MinProbability = Annotated[float, typer.Option(help="Drop pairs with a smaller probability.")]
PairSeed = Annotated[int, typer.Option("--seed", help="The seed for --pairs best-random.")]
Fail = Annotated[bool, typer.Option("--fail", help="Stop at the first item that cannot be labelled.")]
Restart = Annotated[bool, typer.Option("--restart", help="Discard the work of an interrupted run.")]


def build_recipe(
    form: Form, pairs: Pairing, ties: Ties, tie_margin: float, min_margin: float, min_probability: float, seed: int
) -> Recipe:
    """Build the recipe from these flags.

    Raises:
        typer.BadParameter: a value is out of range, or two flags contradict each other.
    """
    try:
        return Recipe(form, pairs, ties, tie_margin, min_margin, min_probability, seed)
    except TureenError as error:
        raise typer.BadParameter(error.message, param_hint=f"--{(error.param or '').replace('_', '-')}") from None


def dump_tally(tally: Tally, target: Path) -> dict[str, Any]:
    """Return the tally and the file names as a dict, for ``--json``."""
    errors = str(TargetFiles(target).errors) if tally.failed else None
    told = {name: value for name, value in asdict(tally).items() if name != "columns" or value}
    return {**told, "target": str(target), "errors": errors}


def describe_tally(tally: Tally, target: Path) -> str:
    """Return the tally as one line of text."""
    parts = [f"labelled {tally.labelled} of {tally.read} items into {tally.rows} rows: {target}", f"ties {tally.ties}"]
    parts += [f"left out {count} ({reason})" for reason, count in tally.dropped.items()]
    for column, counted in tally.columns.items():
        parts += [f"column `{column}`, {treatment}: {count}" for treatment, count in counted.items()]
    if tally.failed:
        parts.append(f"failed {tally.failed}: {TargetFiles(target).errors}")
    return "; ".join(parts)
