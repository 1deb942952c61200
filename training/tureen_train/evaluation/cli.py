"""``tureen-train evaluate``, ``compare``, ``margins`` and ``sweep``: the quality of reward models and soups."""

import json
import logging
import re
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from tureen import Client
from tureen_train.faults import exit_on_user_error
from tureen_train.records.options import FormOf, Renames, Reversed, Strict, make_reading_options, open_reading
from tureen_train.settings import set_offline

PROMPTS = Path(__file__).with_name("heldout_prompts.json")
console = Console()


def evaluate_command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="artifact folders, or servers' addresses")],
    data: Annotated[list[Path], typer.Option(help="a file to judge by; may be repeated")],
    bench: Annotated[str, typer.Option(help="pairs, rewardbench or rewardbench2")] = "pairs",
    out: Annotated[Path, typer.Option(help="the folder for report, results and scores")] = Path("runs/evaluation"),
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
    domain: Annotated[str | None, typer.Option(help="pairs: whose answer is preferred in DSP's domains")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="judge so many items, drawn by their content")] = None,
    objective: Annotated[str | None, typer.Option(help="which reward to read, where there are several")] = None,
    preferences: Annotated[str | None, typer.Option(help="weigh several: a=0.7,b=0.3")] = None,
    batch: Annotated[int, typer.Option(min=1, help="texts run together; over HTTP, items in one request")] = 8,
) -> None:
    """Judge reward models by preference pairs, RewardBench or RewardBench 2, in process or over HTTP.

    A server's address may end with #name, the reward to read. Several models are compared.
    """
    set_offline()
    if objective and preferences:
        raise typer.BadParameter("--objective and --preferences exclude each other")
    from tureen_train.evaluation import evaluate as run  # seconds to import: not for --help
    from tureen_train.evaluation.comparison_report import compare_folders as side_by_side
    from tureen_train.evaluation.evaluation_page import make_summary
    from tureen_train.evaluation.objectives import parse_weights
    from tureen_train.evaluation.scorers import open_scorer

    with exit_on_user_error():
        weights = parse_weights(preferences) if preferences else None
        options = make_reading_options(renames, reverse, strict)
        loaded = run.load_items(bench, data, form, domain, **options).limited(limit)
        for note in loaded.notes:
            typer.echo(note, err=True)
        folders = name_folders(models, out)
        answers = sum(len(item.answers) for item in loaded.items)
        for model, folder in zip(models, folders, strict=True):
            with open_scorer(model, objective, weights, batch) as scorer, _progress() as progress:
                task = progress.add_task(f"scoring by {scorer.name}", total=answers)
                found = run.evaluate_model(scorer, loaded, bench, folder, partial(progress.advance, task))
            console.print(make_summary(found))
        if len(folders) > 1:
            side_by_side(folders, out)
    typer.echo(f"the report: {out / 'report.html'}")


def _progress() -> Progress:
    return Progress(console=Console(stderr=True))


def name_folders(models: Sequence[str], out: Path) -> list[Path]:
    """Where each model's evaluation goes: into ``out``, or, of several, into a folder there named after it."""
    if len(models) == 1:
        return [out]
    names = [_folder_name(model) for model in models]
    return [
        out / (name if names.count(name) == 1 else f"{number}-{name}") for number, name in enumerate(names, start=1)
    ]


def _folder_name(model: str) -> str:
    """The last part of a path or address, or the one before where that is just ``artifact``."""
    parts = [part for part in re.split(r"[/#]+", model) if part not in ("", ".", "..", "artifact")]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", parts[-1]) if parts else "model"


def compare_command(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="of evaluations, or of training runs")],
    out: Annotated[Path, typer.Option(help="the folder for the report")] = Path("runs/comparison"),
) -> None:
    """Put evaluations, or training runs, side by side."""
    from tureen_train.evaluation.comparison_report import (
        compare_folders as side_by_side,  # seconds to import: not for --help
    )

    with exit_on_user_error():
        side_by_side(folders, out)
    typer.echo(f"the report: {out / 'report.html'}")


def sweep_command(
    out: Annotated[Path, typer.Option(help="the folder for sweep.png, sweep.csv and texts.jsonl")] = Path("runs/sweep"),
    first: Annotated[str, typer.Option("--from", help="the expert that weighs all at first")] = "academy",
    second: Annotated[str, typer.Option("--to", help="the expert that weighs all at last")] = "entertainment",
    prompts: Annotated[Path, typer.Option(help="JSON with a list `prompts`, or a prompt a line")] = PROMPTS,
    limit: Annotated[int, typer.Option(min=1, help="how many prompts")] = 24,
    steps: Annotated[int, typer.Option(min=2, max=64, help="how many weights")] = 11,
    tokens: Annotated[int, typer.Option(min=1, help="the most tokens of a text")] = 64,
    model: Annotated[str | None, typer.Option(help="the policy family; the server's first one by default")] = None,
    url: Annotated[str, typer.Option(help="the server")] = "http://127.0.0.1:8900",
    start_server: Annotated[bool, typer.Option("--start-server", help="start the starter's, and end it")] = False,
) -> None:
    """Generate at every weight from one expert to another, score every text, and plot the mean rewards."""
    if first == second:
        raise typer.BadParameter("--from and --to name the same expert")
    from tureen_train.evaluation import server  # a second or two to import: not for --help
    from tureen_train.evaluation import sweep as soups

    with exit_on_user_error():
        asked = read_prompts(prompts)[:limit]
        with server.run_server() if start_server else nullcontext(url) as address, Client(address) as client:
            result = soups.sweep_weights(client, asked, first, second, steps, tokens, model)
        soups.write_sweep(result, asked, out)
    console.print(soups.make_table(result))
    typer.echo(f"the plot: {out / 'sweep.png'}")


def margins_command(
    models: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="of reward runs, or of artifacts")],
    data: Annotated[list[Path] | None, typer.Option(help="judge by these files; a run's own held-out part")] = None,
    out: Annotated[Path, typer.Option(help="the folder for the report")] = Path("runs/margins"),
    rating: Annotated[
        str | None, typer.Option(help="correlate with this rating of the answers, as gpt_score; or `scores`")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="also by cosine: `minilm`, or an encoder's folder")] = None,
    pooling: Annotated[str | None, typer.Option(help="mean or cls; what the encoder's folder says by default")] = None,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
    domain: Annotated[str | None, typer.Option(help="DSP: the domain whose answer is preferred")] = None,
    objective: Annotated[str | None, typer.Option(help="which reward to read, where there are several")] = None,
    batch: Annotated[int, typer.Option(min=1, help="texts run together")] = 8,
) -> None:
    """Show how far reward models hold answers apart, by how alike these are, and against δ of PCRM's constraint."""
    set_offline()
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
            with Progress(console=Console(stderr=True)) as progress:
                task = progress.add_task(f"scoring by {model}", total=sum(len(record.answers) for record in records))
                done = partial(progress.advance, task)
                found.append(judge_margins(model, records, objective, chosen, CACHE, batch, done))
        written = write_margin_report(found, out, rating)
    typer.echo(f"the report: {written}")


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file.

    Raises:
        ValueError: it holds none, or is JSON without a list of texts.
    """
    text = path.read_text(encoding="utf-8")
    found = _listed(json.loads(text)) if path.suffix == ".json" else [line.strip() for line in text.splitlines()]
    if not isinstance(found, list) or not all(isinstance(prompt, str) for prompt in found):
        raise ValueError(f"{path}: it needs a list `prompts` of texts")
    prompts = [prompt for prompt in found if prompt.strip()]
    if not prompts:
        raise ValueError(f"{path} holds no prompt")
    return prompts


def _listed(document: Any) -> Any:
    return document.get("prompts") if isinstance(document, dict) else document
