"""Routes for operators: liveness, readiness and metrics."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tureen_serve.api.server_state import ServerState, ServerStateDep
from tureen_serve.batches.batch_service import BatchService, State
from tureen_serve.faults import document_errors

router = APIRouter(tags=["operations"])


@router.get("/health/live", responses=document_errors(503))
async def live(server: ServerStateDep) -> dict[str, str]:
    """200 while the process answers, whether or not the models are loaded; 503 if it must be started again."""
    if death := server.explain_death():
        raise death
    return {"status": "live"}


@router.get("/health/ready", responses=document_errors(503))
async def ready(server: ServerStateDep, request: Request) -> dict[str, Any]:
    """200 if all configured models are loaded and proven, and the server is not shutting down.

    A server whose `batches` or `upstreams` are `failing` is still ready: scores need no store, and another replica has
    the same upstream. The metrics `tureen_batches_failing` and `tureen_upstream_failing` report such a server.
    """
    server.require_ready()
    return {"status": "ready", **_parts(server, request)}


@router.get("/health", responses=document_errors(503))
async def health(server: ServerStateDep, request: Request) -> dict[str, Any]:
    """Readiness, and the loaded models."""
    server.require_ready()
    engine = server.require_engine()
    return {
        "status": "ready",
        "version": version("tureen"),
        "runtime": engine.runtime,
        "rewards": list(engine.rewards),
        "families": list(engine.families),
        **_parts(server, request),
    }


def _parts(server: ServerState, request: Request) -> dict[str, Any]:
    """Return the states of what a ready server may lack: its batches, and the upstreams of families that have one."""
    lanes = server.require_engine().upstreams
    upstreams = {lane.name: "failing" if lane.upstream.trouble else "working" for lane in lanes}
    return {"batches": _batches(request), **({"upstreams": upstreams} if upstreams else {})}


def _batches(request: Request) -> State:
    """Return the state of files and batches: off, opening, working or failing."""
    found: BatchService = request.app.state.batches
    return found.state


@router.get("/metrics", response_class=Response, responses=document_errors(401))
async def metrics(server: ServerStateDep) -> Response:
    """Metrics in Prometheus' text format."""
    text = server.metrics.text(server.engine, server.explain_unready() is None)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
