"""``tureen batch``: run files of requests through a server's batches."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tureen.batch_jobs import job
from tureen.batch_jobs.sidecar import Sidecar
from tureen.batches.batch_flows import ENDED, OUTAGE, STOPPED_EARLY, OnProgress, count_finished_lines, describe_progress
from tureen.commands import tables
from tureen.commands.batch_flags import ErrorFile, Source, Target, To, choose_error_file, find_endpoint, print_report
from tureen.commands.flags import INTERRUPTED, Json, Outage, Url, err, make_console, open_client
from tureen.commands.outage_notice import OutageNotice, open_patient_client
from tureen.errors import InvalidRequest
from tureen.wire import Batch
from tureen.wire.batches import Window as WireWindow

app = typer.Typer(help="Run files of requests through a server's batches.", no_args_is_help=True)

Window = Annotated[
    str,
    typer.Option(help="Time limit in hours or minutes, as 24h or 90m.", callback=lambda text: _check_window(text)),
]
Id = Annotated[str, typer.Argument(help="The batch's id.")]


@app.command()
def run(
    source: Source,
    target: Target,
    to: To = None,
    window: Window = "24h",
    errors: ErrorFile = None,
    restart: Annotated[bool, typer.Option("--restart", help="Cancel an earlier run and start again.")] = False,
    outage: Outage = OUTAGE,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Run every line of a file, and wait for the results.

    To continue an interrupted run, give the same command again; it uses the same batch. Exit code 1: some lines have
    no result, or nothing could be run.
    """
    failed = choose_error_file(target, errors, source)
    with open_patient_client(url, outage) as (client, waiting), _show_progress(as_json, waiting) as on_progress:
        what = job.Job(source, target, failed, to or find_endpoint(source), window)
        try:
            batch = job.run_job(client, what, on_progress, restart=restart, outage=outage)
        except KeyboardInterrupt:
            _explain_how_to_continue(target)
            raise typer.Exit(INTERRUPTED) from None
    if batch.status in STOPPED_EARLY:
        typer.echo("tureen: the same command will report this again; use --restart to run the file again", err=True)
    print_report(batch, target, failed, as_json)


@app.command()
def submit(
    source: Source,
    to: To = None,
    window: Window = "24h",
    outage: Outage = OUTAGE,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Start a batch over the lines of a file, print its id, and do not wait for it."""
    with open_patient_client(url, outage) as (client, _):
        batch = job.submit_file(client, source, to or find_endpoint(source), window)
    typer.echo(batch.model_dump_json() if as_json else batch.id)


@app.command()
def status(batch_id: Id, url: Url = None, as_json: Json = False) -> None:
    """Show the progress of a batch."""
    with open_client(url) as client:
        _show(client.batches.get(batch_id), as_json)


@app.command("list")
def list_all(
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many; all by default.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List batches, the newest first; a narrow terminal shows fewer columns."""
    with open_client(url) as client:
        batches = client.batches.list(limit=limit)
    if as_json:
        typer.echo(json.dumps({"object": "list", "data": [each.model_dump() for each in batches]}))
    else:
        out = make_console()
        out.print(tables.tabulate_batches(batches, out.width))


@app.command()
def cancel(batch_id: Id, url: Url = None, as_json: Json = False) -> None:
    """Cancel a batch. `results` still saves its finished lines."""
    with open_client(url) as client:
        _show(client.batches.cancel(batch_id), as_json)


@app.command()
def results(
    batch_id: Id,
    target: Target,
    errors: ErrorFile = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the batch has ended.")] = False,
    outage: Outage = OUTAGE,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Save a batch's results. Exit code 1: some lines have no result, or the batch has not ended."""
    failed = choose_error_file(target, errors)
    with open_patient_client(url, outage) as (client, waiting):
        if wait:
            with _show_progress(as_json, waiting) as on_progress:
                batch = client.batches.wait(batch_id, on_progress=on_progress, longest_pause=job.OFTEN, outage=outage)
        else:
            batch = client.batches.get(batch_id)
        job.save_results(client, _require_results(batch), target, failed)
    print_report(batch, target, failed, as_json)


def _require_results(batch: Batch) -> Batch:
    if batch.status not in ENDED:
        raise InvalidRequest(f"{describe_progress(batch)}: use --wait to wait for it")
    if batch.status == "failed":
        raise job.explain_rejection(batch)
    return batch


def _check_window(text: str) -> str:
    try:
        return TypeAdapter[str](WireWindow).validate_python(text)
    except ValidationError:
        raise typer.BadParameter(f"{text!r} is not a number of hours or minutes: write it as 24h or 90m") from None


# --------------------------------------------------------------------------- progress and messages


class Rate(ProgressColumn):
    """Shows lines per second."""

    def render(self, task: Task) -> Text:
        """Return the recent rate, or an empty text before the first line is done."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} lines/s")


@contextmanager
def _show_progress(quiet: bool, waiting: OutageNotice) -> Iterator[OnProgress]:
    """Show a progress bar on a terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=quiet or not err.is_terminal, transient=True) as progress:
        task = progress.add_task("uploading", total=None, failed=0)

        def show(batch: Batch) -> None:
            waiting.end()
            progress.update(task, **_bar(batch))

        yield show


def _bar(batch: Batch) -> Mapping[str, Any]:
    counts = batch.request_counts
    return {
        "description": f"{batch.id} {batch.status.replace('_', ' ')}",
        "total": counts.total or None,
        "completed": count_finished_lines(batch),
        "failed": counts.failed,
    }


def _show(batch: Batch, as_json: bool) -> None:
    failed = batch.request_counts.failed
    rest = f"{failed} failed or not run" if batch.status in STOPPED_EARLY else f"{failed} failed"
    typer.echo(batch.model_dump_json() if as_json else f"{describe_progress(batch)}, {rest}")


def _explain_how_to_continue(target: Path) -> None:
    note = Sidecar(target).read()
    if note is not None and note.batch_id is not None:
        message = f"{note.batch_id} still runs at {note.server}. Give the same command again to continue;"
        typer.echo(f"tureen: {message} `tureen batch cancel {note.batch_id}` cancels it", err=True)
