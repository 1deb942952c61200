"""For operators: is it alive, is it ready, what does it count, and what can be asked."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from tureen_serve.api.server_state import ServerStateDep
from tureen_serve.batches.batch_service import BatchService, State
from tureen_serve.faults import document_errors

router = APIRouter(tags=["operations"])


@router.get("/health/live")
async def live() -> dict[str, str]:
    """The process answers. No model is asked."""
    return {"status": "live"}


@router.get("/health/ready", responses=document_errors(503))
async def ready(server: ServerStateDep, request: Request) -> dict[str, str]:
    """Everything configured is loaded and proven, and the server is not on its way out.

    Scores need no store, so a server whose `batches` are `failing` is ready; `tureen_batches_failing` tells of it.
    """
    server.require_ready()
    return {"status": "ready", "batches": _batches(request)}


@router.get("/health", responses=document_errors(503))
async def health(server: ServerStateDep, request: Request) -> dict[str, Any]:
    """Ready, and what is loaded."""
    server.require_ready()
    engine = server.require_engine()
    return {
        "status": "ready",
        "version": version("tureen"),
        "runtime": engine.runtime,
        "rewards": list(engine.rewards),
        "families": list(engine.families),
        "batches": _batches(request),
    }


def _batches(request: Request) -> State:
    """How files and batches are: off, opening, working or failing."""
    found: BatchService = request.app.state.batches
    return found.state


@router.get("/metrics", response_class=Response, responses=document_errors(401))
async def metrics(server: ServerStateDep) -> Response:
    """Prometheus' text format."""
    told = server.metrics.text(server.engine, server.explain_unready() is None)
    return Response(told, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", responses=document_errors(401))
async def routes(request: Request) -> dict[str, Any]:
    """The routes, each with the first line of its description."""
    found = [route for route in request.app.routes if isinstance(route, APIRoute)]
    told = {f"{'/'.join(sorted(route.methods))} {route.path}": route.description.splitlines()[0] for route in found}
    return {"service": "tureen", "version": version("tureen"), "routes": told, "schema": "/openapi.json"}
