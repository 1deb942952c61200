"""The options that both labelling commands take, ``tureen label`` and ``tureen-serve label``, and what both report."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tureen.errors import TureenError
from tureen.labelling.recipe import Form, Pairing, Recipe, Ties
from tureen.labelling.tally import Tally
from tureen.labelling.target_files import TargetFiles

Format = Annotated[Form, typer.Option("--format", help="trl, text-score and rewardbench are for trainers and benches.")]
Pairs = Annotated[Pairing, typer.Option("--pairs", help="Which pairs of an item's candidates become rows.")]
OnTies = Annotated[Ties, typer.Option("--ties", help="Keep them, drop them, or mark them in a column.")]
TieMargin = Annotated[float, typer.Option(help="Margins up to this are ties.")]
MinMargin = Annotated[float, typer.Option(help="Leave out pairs whose rewards differ by less.")]
MinProbability = Annotated[float, typer.Option(help="Leave out pairs that the model is less sure of.")]
PairSeed = Annotated[int, typer.Option("--seed", help="Of --pairs best-random.")]
Fail = Annotated[
    bool, typer.Option("--fail", help="Stop at the first item that cannot be labelled, instead of going on.")
]
Restart = Annotated[bool, typer.Option("--restart", help="Forget what an interrupted run has done.")]


def build_recipe(
    form: Form, pairs: Pairing, ties: Ties, tie_margin: float, min_margin: float, min_probability: float, seed: int
) -> Recipe:
    """The recipe that these options ask for, or wrong usage."""
    try:
        return Recipe(form, pairs, ties, tie_margin, min_margin, min_probability, seed)
    except TureenError as error:
        raise typer.BadParameter(error.message, param_hint=f"--{(error.param or '').replace('_', '-')}") from None


def dump_tally(tally: Tally, target: Path) -> dict[str, Any]:
    """What became of a file, for ``--json``."""
    errors = str(TargetFiles(target).errors) if tally.failed else None
    return {**asdict(tally), "target": str(target), "errors": errors}


def describe_tally(tally: Tally, target: Path) -> str:
    """One line of what became of a file."""
    parts = [f"labelled {tally.labelled} of {tally.read} items into {tally.rows} rows: {target}", f"ties {tally.ties}"]
    parts += [f"left out {count} ({reason})" for reason, count in tally.dropped.items()]
    if tally.failed:
        parts.append(f"failed {tally.failed}: {TargetFiles(target).errors}")
    return "; ".join(parts)
