"""For operators: is it alive, is it ready, what does it count, and what can be asked."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from tureen_serve.api.house import Home
from tureen_serve.faults import documented

router = APIRouter(tags=["operations"])


@router.get("/health/live")
async def live() -> dict[str, str]:
    """The process answers. No model is asked."""
    return {"status": "live"}


@router.get("/health/ready", responses=documented(503))
async def ready(house: Home) -> dict[str, str]:
    """Everything configured is loaded and proven, and the server is not on its way out."""
    if obstacle := house.unready():
        raise obstacle
    return {"status": "ready"}


@router.get("/health", responses=documented(503))
async def health(house: Home) -> dict[str, Any]:
    """Ready, and what is loaded."""
    if obstacle := house.unready():
        raise obstacle
    engine = house.ready()
    return {
        "status": "ready",
        "version": version("tureen"),
        "runtime": engine.runtime,
        "rewards": list(engine.rewards),
        "families": list(engine.families),
    }


@router.get("/metrics", response_class=Response, responses=documented(401))
async def metrics(house: Home) -> Response:
    """Prometheus' text format."""
    told = house.metrics.text(house.engine, house.unready() is None)
    return Response(told, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", responses=documented(401))
async def routes(request: Request) -> dict[str, Any]:
    """The routes, each with the first line of its description."""
    found = [route for route in request.app.routes if isinstance(route, APIRoute)]
    told = {f"{'/'.join(sorted(route.methods))} {route.path}": route.description.splitlines()[0] for route in found}
    return {"service": "tureen", "version": version("tureen"), "routes": told, "schema": "/openapi.json"}
