"""``tureen-serve``: run the server, or check an artifact before it is served."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed
from types import FrameType
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
from tureen_serve.commands.label import label
from tureen_serve.commands.plain_flags import make_reward_entries
from tureen_serve.log_lines import print_first_line, start_logging
from tureen_serve.process_environment import stay_offline
from tureen_serve.settings import Settings, SettingsError

stay_offline()
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
    """Run the server until SIGTERM or SIGINT. Then it becomes unready, finishes its requests, and exits with code 0."""
    if context.invoked_subcommand:
        return
    flags: dict[str, Any] = {"host": host, "port": port, "runtime": runtime, "dtype": dtype, "device": device}
    flags |= {"rewards_root": rewards_root, "rewards_memory_gib": rewards_memory_gib}
    try:
        experts = ExpertFlags(expert or [], base, family, rank, energy, accept_energy)
        entries = make_reward_entries(reward or [], plain)
        with ended_by_sigterm():
            _run(load_model_settings(config, with_starter, entries, experts, **flags))
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


def _run(settings: Settings) -> None:
    start_logging(settings.log_level, settings.log_format)
    from tureen_serve.app import create_app  # imports torch and transformers, which --help does not need
    from tureen_serve.http_protocol import make_protocol

    application = create_app(settings)
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
    Server(config, application.state.server, settings.limits.drain_seconds).run(sockets=[listener])
    if application.state.server.failure:
        raise typer.Exit(1)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
    # asyncio sets this on its own sockets; without it every small reply waits 40 ms for an acknowledgement
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Server(uvicorn.Server):
    """uvicorn with an orderly end: a signal makes it unready at once, and it stops listening ``drain`` seconds later.

    It also ends if the models cannot be loaded.
    """

    def __init__(self, config: uvicorn.Config, server: Any, drain: float) -> None:
        super().__init__(config)
        self._server = server
        self._drain = drain
        self._stopping = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to stop. A second SIGINT stops at once."""
        self._server.draining = True
        self.force_exit = self._stopping and sig == signal.SIGINT
        if self._stopping or not self._drain:
            self.should_exit = True
        else:
            asyncio.get_running_loop().call_later(self._drain, setattr, self, "should_exit", True)
        self._stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether the server must end."""
        return await super().on_tick(counter) or self._server.failure is not None


app.command()(check)
app.command()(label)
app.add_typer(batch, name="batch")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed("tureen"))


if __name__ == "__main__":
    app()
