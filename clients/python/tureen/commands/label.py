"""``tureen label``: label a file of items with a server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from tureen import item_files
from tureen.batches.batch_flows import OUTAGE
from tureen.client import Client
from tureen.commands.flags import (
    INTERRUPTED,
    FormOf,
    HowNormalised,
    Json,
    Outage,
    Preference,
    Renames,
    Reward,
    Truncate,
    Url,
    drop_unset,
    err,
    parse_reading,
    parse_weighing,
)
from tureen.commands.label_flags import (
    Fail,
    Format,
    MinMargin,
    MinProbability,
    OnTies,
    Pairs,
    PairSeed,
    Restart,
    TieMargin,
    build_recipe,
    describe_tally,
    dump_tally,
)
from tureen.commands.outage_notice import open_patient_client
from tureen.errors import TureenError
from tureen.labelling import labelling_run
from tureen.labelling.asked_runs import Fingerprint, LabelRun
from tureen.labelling.journal import say_what_is_kept
from tureen.labelling.target_files import check_target, is_inside
from tureen.wire import PreferencesReply


def label_file(
    source: Annotated[
        Path,
        typer.Argument(
            exists=True, help="JSON Lines, a JSON list, CSV, TSV, Parquet, or a folder saved by `datasets`."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="The file to write: .jsonl, .jsonl.gz or .parquet.")],
    form: Format = "full",
    source_form: FormOf = "auto",
    renames: Renames = None,
    pairs: Pairs = "best-worst",
    ties: OnTies = "keep",
    tie_margin: TieMargin = 0.0,
    min_margin: MinMargin = 0.0,
    min_probability: MinProbability = 0.0,
    seed: PairSeed = 0,
    reward: Reward = None,
    preference: Preference = None,
    normalize: HowNormalised = None,
    truncate: Truncate = False,
    fail: Fail = False,
    size: Annotated[int, typer.Option("--run", min=1, max=4096, help="Items in one request.")] = 64,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Requests sent at the same time.")] = 2,
    restart: Restart = False,
    outage: Outage = OUTAGE,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Label prompts with two or more candidates each: which one is preferred, and with what probability.

    To continue an interrupted run, give the same command again. Exit code 1: some items could not be labelled (see
    out.errors.jsonl), or none could.
    """
    how = build_recipe(form, pairs, ties, tie_margin, min_margin, min_probability, seed)
    try:
        check_target(target)
    except TureenError as error:
        raise typer.BadParameter(error.message, param_hint="TARGET") from None
    if is_inside(target, source):
        place = "in the input folder" if source.is_dir() else "the input file"
        raise typer.BadParameter(f"the target is {place}: choose another name", param_hint="TARGET")
    asked = drop_unset(rewards=reward, **parse_weighing(preference, normalize), truncate=truncate or None)
    plan = labelling_run.Plan(how, asked, not fail, size, parallel, parse_reading(source_form, renames))
    quiet = as_json or not err.is_terminal
    with _resumable(target), open_patient_client(url, outage) as (client, waiting):
        if next(item_files.iterate_items(source), None) is None:
            raise item_files.make_empty_file_error(source)
        with Progress(console=err, disable=quiet, transient=True) as progress:
            task = progress.add_task("labelling", total=None if quiet else item_files.count_items(source))

            def report_progress(count: int) -> None:
                waiting.end()
                progress.advance(task, count)

            tally = labelling_run.label_items(
                make_labeller(client, plan), source, target, plan, report_progress, restart=restart
            )
    typer.echo(json.dumps(dump_tally(tally, target)) if as_json else describe_tally(tally, target))
    raise typer.Exit(1 if tally.failed else 0)


@contextmanager
def _resumable(target: Path) -> Iterator[None]:
    """Tell the user how to continue if the server or Ctrl-C ended the run."""
    try:
        yield
    except KeyboardInterrupt:
        _explain_how_to_continue(target)
        raise typer.Exit(INTERRUPTED) from None
    except typer.Exit as ended:
        if isinstance(ended.__cause__, TureenError) and ended.__cause__.retryable:
            _explain_how_to_continue(target)
        raise


def _explain_how_to_continue(target: Path) -> None:
    typer.echo(f"tureen: {say_what_is_kept([target])}", err=True)


def make_labeller(client: Client, plan: labelling_run.Plan) -> LabelRun:
    """Return a function that labels one run of items through ``client``, at batch priority."""
    options: dict[str, Any] = {
        **(plan.asked or {}),
        "on_error": "item",
        "priority": "batch",
        "tie_margin": plan.recipe.tie_margin,
        "matrix": plan.recipe.matrix,
    }

    def ask(asked: list[dict[str, Any]], fingerprint: Fingerprint | None) -> PreferencesReply:
        return client.preferences(asked, **options, fingerprint=fingerprint)

    return ask
