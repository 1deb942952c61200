"""``tureen-train convert``: any public form of preference data into one of two that everybody reads."""

from pathlib import Path
from typing import Annotated

import typer

from tureen_train.records.reading import Reading
from tureen_train.records.schema import DataError
from tureen_train.records.writing import write_pairs, write_text_score


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file, or a folder that `datasets` saved.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="`.json` makes a JSON list, else JSON Lines.")],
    domain: Annotated[str | None, typer.Option(help="DSP: the domain whose answer is preferred.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="DSP: a domain to leave out; may be repeated.")] = None,
    to_pairs: Annotated[bool, typer.Option("--to-pairs", help="prompt/chosen/rejected, as TRL reads them.")] = False,
    form: Annotated[str, typer.Option(help="The form of IN; `auto` looks at the fields.")] = "auto",
    split: Annotated[str | None, typer.Option(help="Which split of a saved DatasetDict.")] = None,
    style: Annotated[str, typer.Option(help="How OUT begins a turn: `dsp` (## Human:) or `hh` (Human:).")] = "dsp",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad record.")] = False,
) -> None:
    """Convert preference data: to `text`/`score` lists of N whole dialogues, or to pairs of messages."""
    try:
        reading = Reading(source, form=form, domain=domain, exclude=exclude or (), split=split, strict=strict)
        written = _write(reading, target, style, to_pairs)
    except DataError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"wrote {written} {'pairs' if to_pairs else 'records'} to {target}")


def _write(reading: Reading, target: Path, style: str, to_pairs: bool) -> int:
    try:
        return write_pairs(reading, target) if to_pairs else write_text_score(reading, target, style)
    finally:
        for line in reading.report.lines() if reading.report.read else []:
            typer.echo(line, err=True)
