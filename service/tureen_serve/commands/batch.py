"""``tureen-serve batch run``: answer a file of requests in this process, with the functions of the server's routes."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tureen.batch_jobs.job import explain_rejection
from tureen.commands.batch_flags import ErrorFile, Source, Target, To, choose_error_file, find_endpoint, print_report
from tureen.commands.flags import INTERRUPTED, Json
from tureen.errors import TureenError, Unavailable
from tureen.wire import Batch, Endpoint, RequestCounts
from tureen_core.plain.option_flags import take_plain_flags
from tureen_core.plain.options import NO_OPTIONS, PlainOptions
from tureen_serve.commands.artifact_flags import (
    AcceptEnergy,
    ConfigFile,
    Device,
    Dtype,
    ExpertBase,
    ExpertEnergy,
    ExpertFamily,
    ExpertFolders,
    ExpertRank,
    PolicyFolders,
    RewardFolders,
    RuntimeName,
    WithStarter,
    exit_with_error,
    load_model_settings,
)
from tureen_serve.commands.expert_flags import ExpertFlags
from tureen_serve.commands.plain_flags import make_reward_entries
from tureen_serve.settings import Settings, SettingsError

ERR = Console(stderr=True)
app = typer.Typer(help="Run a file of requests, one a line, in this process.", no_args_is_help=True)


@app.callback()
def batch() -> None:
    """Run a file of requests, one a line, in this process."""


@app.command()
@take_plain_flags("tureen-serve")
def run(
    source: Source,
    target: Target,
    to: To = None,
    errors: ErrorFile = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard the results of an interrupted run.")] = False,
    with_starter: WithStarter = False,
    reward: RewardFolders = None,
    expert: ExpertFolders = None,
    policy: PolicyFolders = None,
    base: ExpertBase = None,
    family: ExpertFamily = None,
    rank: ExpertRank = None,
    energy: ExpertEnergy = None,
    accept_energy: AcceptEnergy = None,
    config: ConfigFile = None,
    runtime: RuntimeName = None,
    dtype: Dtype = None,
    device: Device = None,
    as_json: Json = False,
    plain: PlainOptions = NO_OPTIONS,
) -> None:
    """Answer every line of a file. The same command continues an interrupted one.

    Exit code 1 means that some lines have no result, or that nothing could be run.
    """
    failed = choose_error_file(target, errors, source)
    try:
        flags = {"runtime": runtime, "dtype": dtype, "device": device}
        experts = ExpertFlags(expert or [], base, family, rank, energy, accept_energy, policy or [])
        settings = load_model_settings(config, with_starter, make_reward_entries(reward or [], plain), experts, **flags)
        files = (source, target, failed)
        ended = _run(settings, files, to or find_endpoint(source), restart, quiet=as_json or not ERR.is_terminal)
        if ended.status == "failed":
            raise explain_rejection(ended, source)
    except SettingsError as error:
        exit_with_error(error, 2)
    except (TureenError, OSError, RuntimeError, ValueError) as error:
        exit_with_error(error, 1)
    except KeyboardInterrupt:
        typer.echo("tureen-serve: interrupted; the results are kept, run the same command to continue", err=True)
        raise typer.Exit(INTERRUPTED) from None
    print_report(ended, target, failed, as_json)


def _run(settings: Settings, files: tuple[Path, Path, Path], to: Endpoint, restart: bool, quiet: bool) -> Batch:
    # these import torch and fastapi, which --help does not need
    from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS
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
