"""Flags and report shared by ``tureen batch`` and ``tureen-serve batch run``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tureen.batch_jobs import input_lines
from tureen.batches.batch_flows import STOPPED_EARLY
from tureen.errors import InvalidRequest
from tureen.wire import Batch, Endpoint, OutputLine

Source = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="Requests, or rows with --endpoint, as JSON Lines.")
]
Target = Annotated[Path, typer.Argument(dir_okay=False, help="The file to write results to.")]
ErrorFile = Annotated[
    Path | None,
    typer.Option(
        "--error-file", dir_okay=False, help="The file for failed lines; out.errors.jsonl for out.jsonl by default."
    ),
]
To = Annotated[
    Endpoint | None, typer.Option("--endpoint", help="The route for every line; by default the first line's `url`.")
]


def find_endpoint(source: Path) -> Endpoint:
    """Return the endpoint that the first line names.

    Raises:
        typer.BadParameter: it names none.
    """
    try:
        return input_lines.detect_endpoint(source)
    except InvalidRequest as error:
        if error.param != "endpoint":
            raise
        raise typer.BadParameter(error.message, param_hint="--endpoint") from None


def choose_error_file(target: Path, given: Path | None, source: Path | None = None) -> Path:
    """Return the file for failed lines: the given one, or one beside the target.

    Raises:
        typer.BadParameter: two of the files are the same.
    """
    errors = given or target.with_name(f"{target.stem}.errors.jsonl")
    names = [path.absolute() for path in (source, target, errors) if path is not None]
    if len(set(names)) < len(names):
        raise typer.BadParameter("the input, output and error files must be different files")
    return errors


def print_report(batch: Batch, target: Path, errors: Path, as_json: bool) -> None:
    """Print how many lines succeeded, failed or were not run.

    Raises:
        typer.Exit: always; code 1 if some lines have no result.
    """
    counts = batch.request_counts
    not_run = _count_not_run(errors) if batch.status in STOPPED_EARLY and counts.failed else 0
    failed = counts.failed - not_run
    if as_json:
        report = {
            "batch": batch.id,
            "status": batch.status,
            **counts.model_dump(),
            "failed": failed,
            "not_run": not_run,
        }
        typer.echo(json.dumps({**report, "target": str(target), "errors": str(errors) if counts.failed else None}))
    else:
        ended = f"{batch.id} {_describe_end(batch)}; " if batch.status in STOPPED_EARLY else ""
        without = [f"{what} {count}" for what, count in (("failed", failed), ("not run", not_run)) if count]
        rest = f"; {', '.join(without)}: {errors}" if without else ""
        typer.echo(f"{ended}done {counts.completed} of {counts.total} lines: {target}{rest}")
    raise typer.Exit(1 if counts.failed else 0)


def _describe_end(batch: Batch) -> str:
    return "was cancelled" if batch.status == "cancelled" else "has expired"


def _count_not_run(errors: Path) -> int:
    """Count the lines that never ran because their batch stopped early: a line that ran and failed has a response."""
    with errors.open("rb") as lines:
        return sum(1 for line in lines if OutputLine.model_validate_json(line).response is None)
