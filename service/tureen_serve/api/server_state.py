"""The state that all routes share: the engine once it is loaded, the metrics, and whether the server is draining."""

import time
from collections.abc import AsyncIterator, Mapping
from typing import Annotated

from fastapi import Depends, Request

from tureen.errors import Unavailable
from tureen_serve.changes.model_changes import ModelChanges
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.lane import RESTARTING
from tureen_serve.loop_turns import LoopTurns
from tureen_serve.settings import ServerLimits
from tureen_serve.telemetry import Metrics


class ServerState:
    """The state of one server.

    Args:
        aliases: alias → model, for the ``model`` of other protocols.
        limits: how much work this server accepts.

    Attributes:
        engine: None until it is loaded.
        failure: why the engine could not be loaded, or None.
        draining: true after the first signal to stop.
        json_limits: those of ``limits`` that bound a body's JSON.
        changes: change the models of the engine; None before it is loaded, and if it has no models that can change.
        turns: those of the requests that read their bodies.
        since: when the engine was loaded, in seconds since the epoch.
    """

    def __init__(self, aliases: Mapping[str, str] | None = None, limits: ServerLimits | None = None) -> None:
        self.aliases = dict(aliases or {})
        self.limits = limits or ServerLimits()
        self.json_limits = self.limits.json_limits
        self.engine: Engine | None = None
        self.changes: ModelChanges | None = None
        self.failure: str | None = None
        self.draining = False
        self.turns = LoopTurns()
        self.since = 0
        self.metrics = Metrics()

    def set_engine(self, engine: Engine, seconds: float) -> None:
        """Set the loaded engine, which took ``seconds`` to load."""
        self.engine = engine
        self.since = int(time.time())
        self.metrics.load_seconds.set(seconds)

    async def close(self) -> None:
        """End the models."""
        if self.changes is not None:
            await self.changes.close()
        if self.engine is not None:
            await self.engine.close()

    def explain_unavailable(self) -> Unavailable | None:
        """Return why requests cannot be answered, or None. A draining server still answers."""
        if self.failure:
            return Unavailable(self.failure, code="not_ready", retry_after=30)
        if self.engine is None:
            return Unavailable("the models are still loading; try again", code="model_loading", retry_after=2)
        if (failure := self.engine.failure) is None:
            return None
        return self.explain_death() or Unavailable(failure, code="not_ready", retry_after=30)

    def explain_death(self) -> Unavailable | None:
        """Return why this process must end, or None."""
        why = self.engine.death if self.engine else None
        return None if why is None else Unavailable(why, code="engine_dead", retry_after=RESTARTING)

    def explain_unready(self) -> Unavailable | None:
        """Return why new requests should go to another server, or None."""
        if self.draining:
            return Unavailable("this server is shutting down; try another server", code="draining", retry_after=1)
        return self.explain_unavailable()

    def require_ready(self) -> None:
        """Check that this server takes new requests.

        Raises:
            Unavailable: it does not; the message says why.
        """
        if obstacle := self.explain_unready():
            raise obstacle

    def require_engine(self) -> Engine:
        """Return the engine.

        Raises:
            Unavailable: the engine is still loading, or it failed.
        """
        if obstacle := self.explain_unavailable():
            raise obstacle
        assert self.engine is not None
        return self.engine


async def _server(request: Request) -> ServerState:
    found: ServerState = request.app.state.server
    return found


async def _engine(server: Annotated[ServerState, Depends(_server)]) -> AsyncIterator[Engine]:
    with server.require_engine().hold() as engine:  # until the reply is sent
        yield engine


async def _metrics(server: Annotated[ServerState, Depends(_server)]) -> Metrics:
    return server.metrics


ServerStateDep = Annotated[ServerState, Depends(_server)]
EngineDep = Annotated[Engine, Depends(_engine)]
MetricsDep = Annotated[Metrics, Depends(_metrics)]
