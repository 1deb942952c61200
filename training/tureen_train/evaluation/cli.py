"""The commands ``tureen-train evaluate``, ``compare``, ``margins``, ``sweep`` and ``weights``."""

import json
import logging
import re
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tureen import Client
from tureen.commands.flags import HowNormalised
from tureen_train.config.weights import parse_weighing
from tureen_train.faults import exit_on_user_error
from tureen_train.records.options import FormOf, Renames, Reversed, Strict, make_reading_options, open_reading
from tureen_train.terminal import make_console, show_progress

PROMPTS = Path(__file__).with_name("heldout_prompts.json")


def evaluate_command(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="artifact folders, or servers as http://host:8900#reward")
    ],
    data: Annotated[list[Path], typer.Option(help="a file of preference data; may be repeated")],
    bench: Annotated[str, typer.Option(help="the benchmark: pairs, rewardbench or rewardbench2")] = "pairs",
    out: Annotated[Path, typer.Option(help="the folder for the report, results and scores")] = Path("runs/evaluation"),
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
    domain: Annotated[str | None, typer.Option(help="for DSP's files: the domain whose answer is preferred")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="evaluate on this many items, drawn by a hash of their content")
    ] = None,
    objective: Annotated[str | None, typer.Option(help="the reward to use, if the model has several")] = None,
    preferences: Annotated[str | None, typer.Option(help="the weights of several rewards, as a=0.7+b=0.3")] = None,
    normalize: HowNormalised = None,
    batch: Annotated[int, typer.Option(min=1, help="texts in one batch; over HTTP, items in one request")] = 8,
) -> None:
    """Evaluate reward models on preference pairs, RewardBench or RewardBench 2, in process or over HTTP.

    A server's address may end with #name, the reward to evaluate. If several models are given, they are also compared.
    """
    if objective and preferences:
        raise typer.BadParameter("give --objective or --preferences, not both")
    from tureen_train.evaluation import evaluate as evaluation  # seconds to import: not for --help
    from tureen_train.evaluation.comparison_report import compare_folders
    from tureen_train.evaluation.evaluation_page import make_summary
    from tureen_train.evaluation.scorers import open_scorer

    with exit_on_user_error():
        weights, how = parse_weighing(preferences, normalize)
        options = make_reading_options(renames, reverse, strict)
        loaded = evaluation.load_items(bench, data, form, domain, **options).limited(limit)
        for note in loaded.notes:
            typer.echo(note, err=True)
        folders = name_folders(models, out)
        answers = sum(len(item.answers) for item in loaded.items)
        for model, folder in zip(models, folders, strict=True):
            with open_scorer(model, objective, weights, batch, how) as scorer, show_progress() as progress:
                for warning in evaluation.find_trained_files(scorer, loaded):
                    typer.echo(f"{scorer.name}: {warning}", err=True)
                task = progress.add_task(f"scoring by {scorer.name}", total=answers)
                found = evaluation.evaluate_model(scorer, loaded, bench, folder, partial(progress.advance, task))
            make_console().print(make_summary(found))
        if len(folders) > 1:
            compare_folders(folders, out)
    typer.echo(f"the report: {out / 'report.html'}")


def name_folders(models: Sequence[str], out: Path) -> list[Path]:
    """Return the folder for each model's evaluation: ``out`` for one model, else subfolders named after the models."""
    if len(models) == 1:
        return [out]
    names = [_folder_name(model) for model in models]
    return [
        out / (name if names.count(name) == 1 else f"{number}-{name}") for number, name in enumerate(names, start=1)
    ]


def _folder_name(model: str) -> str:
    """Return the last part of a path or address that is not ``artifact``."""
    parts = [part for part in re.split(r"[/#]+", model) if part not in ("", ".", "..", "artifact")]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", parts[-1]) if parts else "model"


def compare_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="the folders of evaluations, or of training runs")
    ],
    out: Annotated[Path, typer.Option(help="the folder for the report")] = Path("runs/comparison"),
) -> None:
    """Compare evaluations, or training runs."""
    from tureen_train.evaluation.comparison_report import compare_folders  # seconds to import: not for --help

    with exit_on_user_error():
        compare_folders(folders, out)
    typer.echo(f"the report: {out / 'report.html'}")


def sweep_command(
    out: Annotated[Path, typer.Option(help="the folder for sweep.png, sweep.csv and texts.jsonl")] = Path("runs/sweep"),
    first: Annotated[str, typer.Option("--from", help="the expert with all the weight at the start")] = "academy",
    second: Annotated[str, typer.Option("--to", help="the expert with all the weight at the end")] = "entertainment",
    prompts: Annotated[
        Path, typer.Option(help="a JSON file with a list `prompts`, or a text file with one prompt per line")
    ] = PROMPTS,
    limit: Annotated[int, typer.Option(min=1, help="the number of prompts")] = 24,
    steps: Annotated[int, typer.Option(min=2, max=64, help="the number of weights")] = 11,
    tokens: Annotated[int, typer.Option(min=1, help="the maximum number of tokens of a text")] = 64,
    model: Annotated[str | None, typer.Option(help="the policy family; the server's first one by default")] = None,
    url: Annotated[str, typer.Option(help="the server's address")] = "http://127.0.0.1:8900",
    start_server: Annotated[
        bool, typer.Option("--start-server", help="start a server with the starter artifacts, and stop it at the end")
    ] = False,
) -> None:
    """Generate texts at weights from one expert to another, score them, and plot the mean rewards."""
    if first == second:
        raise typer.BadParameter("--from and --to name the same expert")
    from tureen_train.evaluation import server  # a second or two to import: not for --help
    from tureen_train.evaluation import sweep as soups

    with exit_on_user_error():
        asked = read_prompts(prompts)[:limit]
        with server.run_server() if start_server else nullcontext(url) as address, Client(address) as client:
            result = soups.sweep_weights(client, asked, first, second, steps, tokens, model)
        soups.write_sweep(result, asked, out)
    make_console().print(soups.make_table(result))
    typer.echo(f"the plot: {out / 'sweep.png'}")


def weights_command(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            help="the choices: preference data in any form, or rows with `chosen_rewards` and `rejected_rewards`",
        ),
    ],
    reward: Annotated[
        list[str] | None,
        typer.Option(
            help="a reward that scores the texts: an artifact's folder, with #objective if it has several, or a server"
            " as http://host:8900#reward; name two or more"
        ),
    ] = None,
    form: FormOf = "auto",
    renames: Renames = None,
    level: Annotated[
        float, typer.Option(min=0.5, max=0.99, help="the probability that an interval holds its weight")
    ] = (0.95),
    width: Annotated[
        float,
        typer.Option(min=0.01, max=1.0, help="the width of the intervals for which the choices needed are counted"),
    ] = 0.2,
    preset: Annotated[str, typer.Option(help="the name of the preset that is printed")] = "mine",
    batch: Annotated[int, typer.Option(min=1, help="texts in one batch; over HTTP, pairs in one request")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Find the preference weights that explain a person's choices between two answers."""
    from tureen.choice_files import read_choices
    from tureen.commands import tables
    from tureen.records.reading import parse_renames
    from tureen_train.evaluation.person_weights import fit_choices  # seconds to import: not for --help

    with exit_on_user_error():
        choices = read_choices(file, form, parse_renames(renames or ()))
        for note in choices.notes:
            typer.echo(note, err=True)
        with show_progress() as progress:
            task = progress.add_task("scoring", total=2 * len(choices.pairs) * len(reward or ()))
            fit = fit_choices(choices, reward or [], level, width, preset, batch, partial(progress.advance, task))
    if as_json:
        typer.echo(fit.model_dump_json())
        return
    make_console().print(tables.tabulate_fit(fit))
    for line in tables.describe_fit(fit):
        typer.echo(line)


def margins_command(
    models: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="the folders of reward runs, or of artifacts")
    ],
    data: Annotated[
        list[Path] | None, typer.Option(help="the records to score; by default those that each run held out")
    ] = None,
    out: Annotated[Path, typer.Option(help="the folder for the report")] = Path("runs/margins"),
    rating: Annotated[
        str | None, typer.Option(help="correlate rewards with this rating of the answers, as gpt_score or scores")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="also compute cosines, by `minilm` or the encoder in a folder")
    ] = None,
    pooling: Annotated[str | None, typer.Option(help="mean or cls; by default that of the encoder's folder")] = None,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
    domain: Annotated[str | None, typer.Option(help="for DSP's files: the domain whose answer is preferred")] = None,
    objective: Annotated[str | None, typer.Option(help="the reward to use, if the model has several")] = None,
    batch: Annotated[int, typer.Option(min=1, help="texts in one batch")] = 8,
) -> None:
    """Report the reward margins of models, against the similarity of the answers and the cap of PCRM's constraint."""
    logging.basicConfig(level="WARNING")
    from tureen_core.base import CACHE  # seconds to import, as what follows
    from tureen_train.evaluation.margin_report import judge_margins, read_held_out, write_margin_report
    from tureen_train.networks.sentence_encoder import open_encoder, parse_pooling

    with exit_on_user_error():
        chosen = open_encoder(encoder, parse_pooling(pooling)) if encoder else None
        given = [
            record
            for path in data or ()
            for record in open_reading(path, form, renames, reverse, strict, domain=domain)
        ]
        found = []
        for model in models:
            records = given if data else read_held_out(model)
            with show_progress() as progress:
                task = progress.add_task(f"scoring by {model}", total=sum(len(record.answers) for record in records))
                done = partial(progress.advance, task)
                found.append(judge_margins(model, records, objective, chosen, CACHE, batch, done))
        written = write_margin_report(found, out, rating)
    typer.echo(f"the report: {written}")


def read_prompts(path: Path) -> list[str]:
    """Read the prompts of a file: a JSON list, a JSON object with a list ``prompts``, or one prompt per line.

    Raises:
        ValueError: the file has no prompt, or is JSON without a list of texts.
    """
    text = path.read_text(encoding="utf-8")
    found = _listed(json.loads(text)) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
    if not isinstance(found, list) or not all(isinstance(prompt, str) for prompt in found):
        raise ValueError(f"{path}: `prompts` must be a list of texts")
    prompts = [prompt for prompt in found if prompt.strip()]
    if not prompts:
        raise ValueError(f"{path} has no prompt; write one prompt per line")
    return prompts


def _listed(document: Any) -> Any:
    return document.get("prompts") if isinstance(document, dict) else document
