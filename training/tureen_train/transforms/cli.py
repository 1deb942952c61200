"""``tureen-train transform``: pairs filtered, augmented, or labelled by a model, written as pairs."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from tureen.records.pairing import split_into_pairs
from tureen.records.reading import Reading
from tureen.records.schema import BadOption, Record
from tureen_train.faults import exit_on_user_error
from tureen_train.records.options import FormOf, Renames, Reversed, Strict, open_reading
from tureen_train.records.writing import write_pairs_with_ties
from tureen_train.settings import set_offline
from tureen_train.transforms.augmentation import add_counterfactuals, count_turned, label_by_model
from tureen_train.transforms.filters import TransformResult, keep_alternating, pair_by_mean, pair_by_score_ratio

transform = typer.Typer(no_args_is_help=True, help="Filter, augment or label preference data; OUT holds pairs.")

Source = Annotated[Path, typer.Argument(metavar="IN", help="preference data in any form")]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="`.json` makes a JSON list, else JSON Lines")]
Seed = Annotated[int, typer.Option(help="what is drawn depends on it")]


@transform.command("rlhflow-filter")
def rlhflow_filter(
    source: Source,
    target: Target,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Keep what RLHFlow trains on: turns that alternate, none empty, contexts that are equal."""
    with exit_on_user_error():
        reading = open_reading(source, form, renames, reverse, strict)
        kept = keep_alternating(reading)
        _write(TransformResult(list(split_into_pairs(kept.records)), kept.left_out), reading, target)


@transform.command("score-ratio")
def ratio_of_scores(
    source: Source,
    target: Target,
    ratio: Annotated[float, typer.Option(help="the better score is more than so many times the worse one")] = 2.0,
    most: Annotated[int, typer.Option(help="pairs of one prompt")] = 5,
    seed: Seed = 0,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Keep pairs whose scores are far apart, a few of each prompt, as RLHFlow takes SHP."""
    with exit_on_user_error():
        reading = open_reading(source, form, renames, reverse, strict)
        _write(pair_by_score_ratio(reading, ratio, most, seed), reading, target)


@transform.command("mean-pairs")
def pairs_by_mean(
    source: Source,
    target: Target,
    attribute: Annotated[list[str] | None, typer.Option(help="a rating to average; all by default")] = None,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Make pairs of rated answers by the mean of their ratings, as RLHFlow takes UltraFeedback and HelpSteer."""
    with exit_on_user_error():
        reading = open_reading(source, form, renames, reverse, strict)
        _write(pair_by_mean(reading, attribute or ()), reading, target)


@transform.command("rrm")
def augmented(
    source: Source,
    target: Target,
    seed: Seed = 0,
    extra_only: Annotated[bool, typer.Option("--extra-only", help="leave the given pairs out")] = False,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Add RRM's 14 counterfactual rows to each pair; train them with `loss.ties: half`."""
    with exit_on_user_error():
        reading = open_reading(source, form, renames, reverse, strict)
        pairs = list(split_into_pairs(reading))
        extra = add_counterfactuals(pairs, seed)
        given = [] if extra_only else pairs
        _write(TransformResult([*given, *extra.records], extra.left_out), reading, target)


@transform.command("pseudo-label")
def pseudo_label(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="an artifact's folder, or a server's address#reward")],
    source: Source,
    target: Target,
    threshold: Annotated[float, typer.Option(help="kept where the model is surer than this")] = 0.8,
    objective: Annotated[str | None, typer.Option(help="which reward judges, where there are several")] = None,
    batch: Annotated[int, typer.Option(min=1, help="texts run together; over HTTP, pairs in one request")] = 8,
    shard: Annotated[str, typer.Option(help="K/N: the K-th of N parts only, from 0, for N processes")] = "0/1",
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Label pairs by a model where it is sure, the likelier answer first, with its probability (SSRM)."""
    set_offline()
    from tureen_train.transforms.judges import open_judge  # seconds to import: not for --help

    with exit_on_user_error():
        reading = open_reading(source, form, renames, reverse, strict)
        part = _part(list(reading), shard)
        twos = [record for record in part if len(record.answers) == 2 and record.prompt]
        judge = open_judge(model, objective, batch)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("judging", total=len(twos))
            chances = judge.probabilities(twos, lambda count: progress.advance(task, count))
        kept = label_by_model(twos, chances, threshold)
        others = {"not two answers to one prompt": len(part) - len(twos)}
        _write(TransformResult(kept.records, {**kept.left_out, **others}), reading, target)
    typer.echo(f"pairs turned round against their file: {count_turned(kept.records)}", err=True)


def _part(records: list[Record], shard: str) -> list[Record]:
    """Every N-th record from the K-th on."""
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if found is None or int(found[1]) >= int(found[2]):
        raise BadOption(f"--shard: {shard!r} is no K/N with K below N, as 0/4")
    return records[int(found[1]) :: int(found[2])]


def _write(kept: TransformResult, reading: Reading, target: Path) -> None:
    for line in reading.report.lines():
        typer.echo(line, err=True)
    for reason, count in kept.left_out.items():
        if count:
            typer.echo(f"left out, {reason}: {count}", err=True)
    typer.echo(f"wrote {write_pairs_with_ties(kept.records, target)} pairs to {target}")
