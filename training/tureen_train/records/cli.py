"""``tureen-train convert``: any public form of preference data into one of three that everybody reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from tureen.records.pairing import split_into_pairs
from tureen.records.reading import Reading
from tureen.records.schema import BadOption, DataError, Record
from tureen_train.records.options import FormOf, Renames, Reversed, Strict, open_reading
from tureen_train.records.writing import write_pairs, write_steps, write_text_score


def convert_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file, or a folder that `datasets` saved.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="`.json` makes a JSON list, else JSON Lines.")],
    domain: Annotated[str | None, typer.Option(help="DSP: the domain whose answer is preferred.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="DSP: a domain to leave out; may be repeated.")] = None,
    to_pairs: Annotated[bool, typer.Option("--to-pairs", help="prompt/chosen/rejected, as TRL reads them.")] = False,
    pairs_as: Annotated[
        Literal["messages", "text-score"],
        typer.Option(help="How --to-pairs writes a pair: as messages, or as DSP's own lists of two dialogues."),
    ] = "messages",
    to_steps: Annotated[bool, typer.Option("--to-steps", help="prompt/completions/labels, as TRL reads them.")] = False,
    form: FormOf = "auto",
    renames: Renames = None,
    reverse: Reversed = "refuse",
    split: Annotated[str | None, typer.Option(help="Which split of a saved DatasetDict.")] = None,
    style: Annotated[str, typer.Option(help="How OUT begins a turn: `dsp` (## Human:) or `hh` (Human:).")] = "dsp",
    strict: Strict = False,
) -> None:
    """Convert preference data: to `text`/`score` lists of N whole dialogues, to pairs of messages, or to steps."""
    kind = "steps" if to_steps else "pairs" if to_pairs else "records"
    try:
        if to_steps and to_pairs:
            raise BadOption("--to-pairs and --to-steps exclude each other")
        if pairs_as == "text-score" and not to_pairs:
            raise BadOption("--pairs-as says how pairs are written; add --to-pairs")
        reading = open_reading(
            source, form, renames, reverse, strict, domain=domain, exclude=exclude or (), split=split
        )
        written = _write(reading, target, style, kind, pairs_as == "text-score")
    except DataError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"wrote {written} {'answers' if to_steps else kind} to {target}")


def _write(reading: Reading, target: Path, style: str, kind: str, texts: bool) -> int:
    try:
        if kind == "steps":
            return write_steps(reading, target)
        records = _check_domain(reading)
        if kind == "pairs" and not texts:
            return write_pairs(records, target)
        return write_text_score(split_into_pairs(records) if texts else records, target, style)
    finally:
        for line in reading.report.lines() if reading.report.read else []:
            typer.echo(line, err=True)


def _check_domain(reading: Reading) -> Iterator[Record]:
    """The records; an error after the last where they are answers by domain of which none is preferred."""
    yield from reading
    if "dsp" in reading.report.forms and not reading.report.comparable:
        raise BadOption("no pair is comparable: name the preferred domain with --domain")
