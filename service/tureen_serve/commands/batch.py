"""``tureen-serve batch run``: a file of requests in this process, with the routes' own answers and no server."""

import asyncio
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tureen.batch_jobs.job import explain_rejection
from tureen.commands.batch_flags import ErrorFile, Source, Target, To, choose_error_file, find_endpoint, print_report
from tureen.commands.flags import INTERRUPTED
from tureen.errors import TureenError, Unavailable
from tureen.wire import Batch, Endpoint, RequestCounts
from tureen_serve.commands.artifact_flags import read_artifacts
from tureen_serve.settings import Settings, SettingsError, load_settings

ERR = Console(stderr=True)
app = typer.Typer(help="Run a file of requests, one a line, in this process.", no_args_is_help=True)


@app.callback()
def batch() -> None:
    """Run a file of requests, one a line, in this process."""


@app.command()
def run(
    source: Source,
    target: Target,
    to: To = None,
    errors: ErrorFile = None,
    restart: Annotated[bool, typer.Option("--restart", help="forget what was begun before, and its results")] = False,
    with_starter: Annotated[bool, typer.Option("--starter", help="load the artifacts inside the package")] = False,
    reward: Annotated[list[Path] | None, typer.Option(help="a reward artifact's folder; may be repeated")] = None,
    expert: Annotated[list[Path] | None, typer.Option(help="an expert artifact's folder; may be repeated")] = None,
    config: Annotated[Path | None, typer.Option(help="a YAML file of artifacts and settings")] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, transformers or vllm")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Answer every line of a file. The same command goes on where one before it was broken off.

    Exit code 1 says that some lines have no result, or that nothing could be run.
    """
    failed = choose_error_file(target, errors, source)
    try:
        flags = {"runtime": runtime, "dtype": dtype, "device": device}
        settings = load_settings(config, **flags, **read_artifacts(with_starter, reward or [], expert or []))
        if not settings.rewards and not settings.families:
            raise SettingsError("there is nothing to run on: give --starter, --config FILE, --reward or --expert")
        files = (source, target, failed)
        ended = _run(settings, files, to or find_endpoint(source), restart, quiet=as_json or not ERR.is_terminal)
        if ended.status == "failed":
            raise explain_rejection(ended, source)
    except SettingsError as error:
        _refuse(error, 2)
    except (TureenError, OSError, RuntimeError, ValueError) as error:
        _refuse(error, 1)
    except KeyboardInterrupt:
        typer.echo("tureen-serve: what is done is kept; the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    print_report(ended, target, failed, as_json)


def _run(settings: Settings, files: tuple[Path, Path, Path], to: Endpoint, restart: bool, quiet: bool) -> Batch:
    from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS  # torch and fastapi take seconds, and --help none
    from tureen_serve.app import load_engine
    from tureen_serve.batches import local_batch
    from tureen_serve.inference.lane import ignore_run

    engine = load_engine(settings, ignore_run)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

    async def work() -> Batch:
        try:
            if engine.failure:
                raise Unavailable(engine.failure, code="not_ready")
            with Progress(*columns, console=ERR, disable=quiet, transient=True) as progress:
                task = progress.add_task(files[0].name, total=None)

                def watch(counts: RequestCounts) -> None:
                    progress.update(task, total=counts.total or None, completed=counts.completed + counts.failed)

                what = local_batch.LocalBatch(*files, to, restart)
                return await local_batch.run_local_batch(what, BATCH_ENDPOINTS, engine, settings.batches, watch)
        finally:
            await engine.close()

    return asyncio.run(work())


def _refuse(error: Exception, status: int) -> NoReturn:
    typer.echo(f"tureen-serve: {error}", err=True)
    raise typer.Exit(status) from error
