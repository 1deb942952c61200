"""``tureen-serve``: run the server, check an artifact before it is served, or fetch it."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version as installed
from typing import Annotated, Any

import typer
import uvicorn

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
    RewardsMemory,
    RewardsRoot,
    RuntimeName,
    WithStarter,
    exit_with_error,
    load_model_settings,
)
from tureen_serve.commands.batch import app as batch
from tureen_serve.commands.check import check
from tureen_serve.commands.expert_flags import ExpertFlags
from tureen_serve.commands.fetch import fetch
from tureen_serve.commands.key import app as key
from tureen_serve.commands.label import label
from tureen_serve.commands.plain_flags import make_reward_entries
from tureen_serve.log_lines import print_first_line, start_logging
from tureen_serve.process_environment import limit_native_memory, share_interpreter, stay_offline
from tureen_serve.settings import Settings, SettingsError

stay_offline()
limit_native_memory()
app = typer.Typer(
    help="Serve reward models and souped policies over HTTP.", add_completion=False, invoke_without_command=True
)


@app.callback()
@take_plain_flags("tureen-serve")
def serve(
    context: typer.Context,
    with_starter: WithStarter = False,
    reward: RewardFolders = None,
    expert: ExpertFolders = None,
    policy: PolicyFolders = None,
    base: ExpertBase = None,
    family: ExpertFamily = None,
    rank: ExpertRank = None,
    energy: ExpertEnergy = None,
    accept_energy: AcceptEnergy = None,
    rewards_root: RewardsRoot = None,
    rewards_memory_gib: RewardsMemory = None,
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 8900 by default. 0 takes a free port.")] = None,
    runtime: RuntimeName = None,
    dtype: Dtype = None,
    device: Device = None,
    plain: PlainOptions = NO_OPTIONS,
) -> None:
    """Run the server until SIGTERM or SIGINT. Then it becomes unready, finishes its requests, and exits with code 0.

    At SIGHUP it reads the file of --config again, and serves the rewards that it names then.

    If a runtime dies and cannot be started again, it answers its requests and exits with code 70.
    """
    if context.invoked_subcommand:
        return
    flags: dict[str, Any] = {"host": host, "port": port, "runtime": runtime, "dtype": dtype, "device": device}
    flags |= {"rewards_root": rewards_root, "rewards_memory_gib": rewards_memory_gib}
    try:
        experts = ExpertFlags(expert or [], base, family, rank, energy, accept_energy, policy or [])
        entries = make_reward_entries(reward or [], plain)
        read = partial(load_model_settings, config, with_starter, entries, experts, **flags)
        if config is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # until the server reads the file again at it
        with ended_by_sigterm():
            _run(read(), None if config is None else read)
    except SettingsError as error:
        exit_with_error(error, 2)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """End the process with code 0 at SIGTERM until the server has a handler of its own.

    The imports of the model libraries take long, and the first process of a container has no handler by default: the
    signal would be lost.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(settings: Settings, reread: Callable[[], Settings] | None) -> None:
    start_logging(settings.log_level, settings.log_format)
    from tureen_serve.app import create_app  # imports torch and transformers, which --help does not need
    from tureen_serve.http_protocol import make_protocol
    from tureen_serve.http_server import Server, end_process
    from tureen_serve.inference.daemon_thread import has_daemon_work
    from tureen_serve.security.audit import start_audit_log

    start_audit_log()
    share_interpreter()
    application = create_app(settings, reread=reread)
    listener = _listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print_first_line(f"tureen-serve {installed('tureen')} on", address, settings.log_format)
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        http=make_protocol(settings.limits, application.state.server.metrics.count_unparsed),
        timeout_keep_alive=max(1, round(settings.limits.idle_seconds)),
        timeout_graceful_shutdown=settings.limits.grace_seconds,
    )
    server = Server(config, application.state, settings.limits.drain_seconds)
    server.run(sockets=[listener])
    if server.death:
        end_process()
    status = 1 if application.state.server.failure else 0
    if has_daemon_work():  # a model that loads, or is read again
        end_process(status)
    raise typer.Exit(status)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
    # asyncio sets this on its own sockets; without it every small reply waits 40 ms for an acknowledgement
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


app.command()(check)
app.command()(fetch)
app.command()(label)
app.add_typer(batch, name="batch")
app.add_typer(key, name="key")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed("tureen"))


if __name__ == "__main__":
    app()
