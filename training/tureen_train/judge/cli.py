"""``tureen-train judge``: label pairs, compare methods, and measure the agreement of labels."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from tureen.atomic_files import replace_atomically
from tureen.records.reading import Reading
from tureen.records.schema import BadOption, Record
from tureen_train.faults import exit_on_user_error
from tureen_train.judge import options
from tureen_train.records.options import FormOf, Renames, Reversed, Strict, open_reading
from tureen_train.terminal import make_console

judge = typer.Typer(
    no_args_is_help=True, help="Compare answers by a language model or a reward model; measure how labels agree."
)
Labels = Annotated[
    Literal["trl", "rlphf", "alpaca-farm", "text-score"],
    typer.Option(
        "--as",
        help="the form of OUT: `trl` prompt, chosen, rejected; `rlphf` user_input with the preference's sentence,"
        " completion_a, completion_b; `alpaca-farm` output_1, output_2, preference; `text-score` DSP's",
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        help="what the judge is asked: a criterion (see `judge configurations`), STYLE/CRITERION, a sentence, or a YAML"
        " file; helpfulness by default",
    ),
]
Configs = Annotated[
    list[str] | None, typer.Option("--config", help="as of `judge annotate`; may be repeated, one for each criterion")
]


@judge.command("configurations")
def list_configurations() -> None:
    """List the packaged styles and criteria. A style says how a judge is asked, a criterion what."""
    from tureen_train.judge.configuration import list_criteria, list_styles

    for style in list_styles():
        for criterion in list_criteria():
            typer.echo(f"{style}/{criterion}")


@judge.command("show")
def show_configuration(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="STYLE/CRITERION, a criterion, or a YAML file")],
) -> None:
    """Print a configuration as YAML. A changed copy of it can be given to --config."""
    from tureen_train.judge.configuration import format_configuration, read_configuration

    with exit_on_user_error():
        typer.echo(format_configuration(read_configuration(config)), nl=False)


@judge.command("annotate")
def annotate_pairs(
    source: Annotated[Path, typer.Argument(metavar="IN", help="answers to prompts, in any known form")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="the labels: a JSON list if it ends in `.json`, else JSON Lines")
    ],
    by: options.By,
    config: Config = None,
    labels: Labels = "trl",
    model: options.ModelName = None,
    objective: options.Objective = None,
    orders: options.OrdersOf = None,
    batch: options.Batch = None,
    temperature: options.Temperature = None,
    max_tokens: options.MaxTokens = None,
    concurrency: options.Concurrency = 8,
    timeout: options.Timeout = 300.0,
    most_unparsed: options.MostUnparsed = 0.1,
    price: options.PriceOf = None,
    tokenizer: options.Tokenizer = None,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Label all pairs of answers to each prompt, for training. What a language model says is kept beside OUT.

    The same command goes on after a kill, and asks nothing twice. The style is `annotate` unless --config names one.
    """
    from tureen_train.judge.annotating import annotate_file  # seconds to import: not for --help

    with exit_on_user_error():
        chosen = options.JudgeChoice(
            by, model, objective, orders, batch, temperature, max_tokens, concurrency, timeout, most_unparsed
        )
        reading = open_reading(source, form, renames, reverse, strict)
        spending = options.Spending(price, tokenizer, yes, dry_run)
        whole = annotate_file(reading, target, chosen, config, labels, spending)
    if not whole:
        raise typer.Exit(1)


@judge.command("evaluate")
def evaluate_methods(
    methods: Annotated[
        list[str], typer.Argument(metavar="METHOD...", help="files of answers to the same prompts, as NAME=FILE")
    ],
    by: options.By,
    config: Configs = None,
    out: Annotated[Path, typer.Option(help="the folder for results.json and verdicts.jsonl")] = Path("runs/judged"),
    model: options.ModelName = None,
    objective: options.Objective = None,
    orders: options.OrdersOf = None,
    batch: options.Batch = None,
    temperature: options.Temperature = None,
    max_tokens: options.MaxTokens = None,
    concurrency: options.Concurrency = 8,
    timeout: options.Timeout = 300.0,
    most_unparsed: options.MostUnparsed = 0.1,
    price: options.PriceOf = None,
    tokenizer: options.Tokenizer = None,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    form: FormOf = "auto",
    renames: Renames = None,
    strict: Strict = False,
) -> None:
    """Compare methods by their answers to the same prompts: win rates with 95 % intervals, for each criterion.

    Answers are joined by their prompts. Each two methods are compared. A tie is half a win for both. The style is
    `evaluate` unless --config names one. The same command goes on after a kill, and asks nothing twice.
    """
    from tureen_train.judge.evaluating import evaluate_files  # seconds to import: not for --help

    with exit_on_user_error():
        chosen = options.JudgeChoice(
            by, model, objective, orders, batch, temperature, max_tokens, concurrency, timeout, most_unparsed
        )
        found = {name: _read_answers(path, form, renames, strict) for name, path in _name_files(methods).items()}
        spending = options.Spending(price, tokenizer, yes, dry_run)
        whole = evaluate_files(found, out, chosen, config, spending)
    if not whole:
        raise typer.Exit(1)


@judge.command("agree")
def measure_agreement(
    source: Annotated[Path, typer.Argument(metavar="LABELS", help="labelled pairs in any known form, as of people")],
    by: Annotated[
        list[str],
        typer.Option(
            "--by",
            help="whose verdicts are compared with them: another file of labels, the folder of a reward model's"
            " artifact, a reward of a Tureen server as http://host:8900#helpful, or a causal model; may be repeated",
        ),
    ],
    config: Config = None,
    objective: options.Objective = None,
    out: Annotated[Path | None, typer.Option(help="a JSON file for the figures")] = None,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    strict: Strict = False,
) -> None:
    """Measure the agreement with labels: accuracy and Cohen's kappa, with 95 % intervals of a bootstrap over prompts.

    A tie and a decision agree half. The labels of a language model are first written by `judge annotate`.
    """
    from tureen_train.judge.agreeing import compare_labels  # seconds to import: not for --help

    with exit_on_user_error():
        labels = list(open_reading(source, form, renames, reverse, strict))
        rows = compare_labels(labels, by, config, objective)
        table = Table("labels of", "pairs", "agreement", "decided", "kappa", title=f"agreement with {source}")
        for row in rows:
            table.add_row(*row.cells)
        make_console().print(table)
        if out is not None:
            with replace_atomically(out) as part:
                part.write_text(json.dumps([row.plain for row in rows], indent=1) + "\n", encoding="utf-8")


def _name_files(methods: list[str]) -> dict[str, Path]:
    """Read NAME=FILE, or a file whose stem is the name."""
    found: dict[str, Path] = {}
    for each in methods:
        name, equals, path = each.partition("=")
        name, path = (name, path) if equals else (Path(each).stem, each)
        if name in found:
            raise BadOption(f"METHOD: two are called {name!r}; write NAME=FILE")
        found[name] = Path(path)
    return found


def _read_answers(path: Path, form: str, renames: list[str] | None, strict: bool) -> list[Record]:
    reading: Reading = open_reading(path, form, renames, "refuse", strict)
    return list(reading)
