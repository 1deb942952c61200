"""``tureen-train convert``: any public form of preference data into one of three that everybody reads."""

import math
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
    typer.echo(_say_what_it_suits(kind, reading.report.comparable))


def _write(reading: Reading, target: Path, style: str, kind: str, texts: bool) -> int:
    try:
        if kind == "steps":
            return write_steps(reading, target)
        records = _check_use(reading)
        if kind == "pairs" and not texts:
            return write_pairs(records, target)
        return write_text_score(split_into_pairs(records) if texts else records, target, style)
    finally:
        for line in reading.report.lines() if reading.report.read else []:
            typer.echo(line, err=True)


def _check_use(reading: Reading) -> Iterator[Record]:
    """The records; an error after the last where nothing can be learnt from them in a form that is written."""
    scored = False
    for record in reading:
        scored = scored or not all(map(math.isnan, record.scores))
        yield record
    report = reading.report
    if "dsp" in report.forms and not report.comparable:
        raise BadOption("no pair is comparable: name the preferred domain with --domain")
    if report.kept and not report.comparable and not scored:
        raise BadOption(
            "no answer has a score, and neither pairs nor lists of texts hold ratings, so the output would suit "
            "nothing: train on the file as it stands with loss.method: attributes (recipe my-ratings)"
        )


def _say_what_it_suits(kind: str, comparable: int) -> str:
    """Tell what the output can be trained with."""
    if kind == "steps":
        return "it suits loss.method: steps"
    if comparable:
        return "it suits reward models that rank (recipe my-pairs) and experts by DPO (recipe my-expert)"
    return "it has no comparable pair: it suits policy.method: sft, and no reward model or DPO"
