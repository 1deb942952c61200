"""What the routes share: the engine once it is loaded, the meters, and whether this server is on its way out."""

import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated

from fastapi import Depends, Request

from tureen.errors import Unavailable
from tureen_serve.inference.engine import Engine
from tureen_serve.settings import ServerLimits
from tureen_serve.telemetry import Metrics


class ServerState:
    """One server's engine, from before it is there until after it is gone.

    Args:
        aliases: what a dialect's ``model`` may be called, and the rewards that it then means.
        limits: what this server takes on.

    Attributes:
        engine: None while it is loading.
        failure: the sentence that says why it could not be loaded.
        draining: true from the first signal to stop.
        since: when the engine was there, in seconds of the epoch.
    """

    def __init__(self, aliases: Mapping[str, str] | None = None, limits: ServerLimits | None = None) -> None:
        self.aliases = dict(aliases or {})
        self.limits = limits or ServerLimits()
        self.engine: Engine | None = None
        self.failure: str | None = None
        self.draining = False
        self.since = 0
        self.metrics = Metrics()

    def fill(self, engine: Engine, seconds: float) -> None:
        """The engine is there; loading took so long."""
        self.engine = engine
        self.since = int(time.time())
        self.metrics.load_seconds.set(seconds)

    def obstacle(self) -> Unavailable | None:
        """Why requests cannot be answered, None if they can. A draining server still answers."""
        if self.failure:
            return Unavailable(self.failure, code="not_ready", retry_after=30)
        if self.engine is None:
            return Unavailable("the models are loading; try again", code="model_loading", retry_after=2)
        if self.engine.failure:
            return Unavailable(self.engine.failure, code="not_ready", retry_after=30)
        return None

    def unready(self) -> Unavailable | None:
        """Why new requests should go elsewhere, None if they need not."""
        if self.draining:
            return Unavailable("this server is shutting down", code="draining", retry_after=1)
        return self.obstacle()

    def ready(self) -> Engine:
        """The engine.

        Raises:
            Unavailable: it is loading or failed; the message says which.
        """
        if obstacle := self.obstacle():
            raise obstacle
        assert self.engine is not None
        return self.engine


async def _server(request: Request) -> ServerState:
    found: ServerState = request.app.state.server
    return found


async def _engine(server: Annotated[ServerState, Depends(_server)]) -> AsyncIterator[Engine]:
    with server.ready().hold() as engine:  # until the reply is sent
        yield engine


async def _metrics(server: Annotated[ServerState, Depends(_server)]) -> Metrics:
    return server.metrics


ServerStateDep = Annotated[ServerState, Depends(_server)]
EngineDep = Annotated[Engine, Depends(_engine)]
MetricsDep = Annotated[Metrics, Depends(_metrics)]
