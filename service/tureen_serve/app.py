"""Build the application: middleware, routes, and an engine that loads in a thread while health is already answered."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from tureen_serve.admission import Admission, InFlight
from tureen_serve.api import (
    batches,
    chat,
    explain,
    files,
    model_changes,
    models,
    ops,
    playground,
    preference_fit,
    preferences,
    reading_headers,
    responses,
    score,
    unserved,
)
from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS
from tureen_serve.api.ignored_fields import IGNORED
from tureen_serve.api.server_state import ServerState
from tureen_serve.batches.batch_service import BatchService
from tureen_serve.changes.config_reread import ConfigReread
from tureen_serve.dialects import DIALECTS, ERROR_BUILDERS
from tureen_serve.engine_loading import Loader, open_changes
from tureen_serve.engine_loading import load_engine as load_engine
from tureen_serve.faults import HANDLERS, Faults, build_openai_error
from tureen_serve.inference.daemon_thread import run_in_daemon_thread
from tureen_serve.inference.heap import freeze_heap
from tureen_serve.inference.native_heap import HeapTrimmer, NativeHeap
from tureen_serve.path_forms import PathForms
from tureen_serve.request_telemetry import RouteTemplates, Telemetry
from tureen_serve.runtimes.load import LoadError
from tureen_serve.security.audit import Audit
from tureen_serve.security.guard import Guard
from tureen_serve.security.headers import SafeHeaders
from tureen_serve.security.key_watch import KeyWatch
from tureen_serve.security.scopes import RouteScopes, UnguardedRoute, match_routes
from tureen_serve.settings import Settings
from tureen_serve.traces import Traces, Tracing, join_observers

LOG = logging.getLogger(__name__)
CORS: Mapping[str, Any] = {  # no cookies: a page must have a key of its own
    "allow_methods": ("GET", "POST", "PUT", "DELETE"),
    "allow_headers": ("*",),
    "expose_headers": ("x-request-id", "retry-after", reading_headers.NORMALISED, reading_headers.TRUNCATED, IGNORED),
}
OPENAI_ROUTERS = (chat.router, responses.router, files.router, batches.router, models.router, unserved.router)
ROUTERS = (
    score.router,
    explain.router,
    preferences.router,
    preference_fit.router,
    *OPENAI_ROUTERS,
    model_changes.router,
    ops.router,
    playground.router,
    *(each.router for each in DIALECTS),
)
OPENAI_ERRORS = {
    route.path: build_openai_error
    for router in OPENAI_ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
}


def create_app(settings: Settings, load: Loader = load_engine, reread: Callable[[], Settings] | None = None) -> FastAPI:
    """Create the application.

    Args:
        load: loads the engine. It is called once, in a thread, when the application starts.
        reread: reads the settings again, when ``app.state.reread`` is requested; None if they cannot change.

    Raises:
        SettingsError: the file of keys cannot be read, or the packages of a setting are not installed.
    """
    server = ServerState(settings.aliases, settings.limits)
    keys = KeyWatch(settings.keys, server.metrics.registry) if settings.keys else None
    traces = Traces(settings.traces) if settings.traces else None
    jobs = BatchService(
        settings.batches, BATCH_ENDPOINTS, lambda: None if server.explain_unready() else server.engine, server.metrics
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(server, settings, load, traces, app.state.reread))
        opening = asyncio.create_task(jobs.open())
        watching = asyncio.create_task(keys.run()) if keys else None
        trimmer = HeapTrimmer(NativeHeap())
        trimmer.start()
        yield
        trimmer.close()
        for task in filter(None, (loading, opening, watching)):
            task.cancel()
        await jobs.close()
        await server.close()
        if traces:
            await traces.close()

    app = FastAPI(
        title="Tureen",
        version=version("tureen"),
        lifespan=lifespan,
        exception_handlers=HANDLERS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.server, app.state.batches, app.state.in_flight = server, jobs, InFlight()
    app.state.reread = ConfigReread(reread, settings) if reread else None
    for router in ROUTERS:
        app.include_router(router)
    # the middleware that is added last runs first
    uploads = {files.UPLOAD: settings.batches.file_bytes + files.FORM_BYTES}
    app.add_middleware(Admission, limits=settings.limits, uploads=uploads, held=app.state.in_flight)
    scopes = _find_scopes(app)
    app.add_middleware(Guard, ring=(lambda: keys.ring) if keys else None, scopes=scopes, settings=settings)
    templates = RouteTemplates(app.routes)
    app.add_middleware(Faults, builders={**OPENAI_ERRORS, **ERROR_BUILDERS}, find=templates.find)
    app.add_middleware(Audit, scopes=scopes)
    if settings.access.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.access.cors_origins, **CORS)
    _add_outermost(app, server, traces, templates)
    return app


def _add_outermost(app: FastAPI, server: ServerState, traces: Traces | None, templates: RouteTemplates) -> None:
    """Add the middleware around all other: safe headers, traces, telemetry, and the forms of a path before it all."""
    app.add_middleware(SafeHeaders)
    if traces:
        app.add_middleware(Tracing, traces=traces)
    app.add_middleware(Telemetry, metrics=server.metrics, templates=templates)
    app.add_middleware(PathForms)


def _find_scopes(app: FastAPI) -> RouteScopes:
    """Find the scope of every route.

    Raises:
        UnguardedRoute: a route has none, or is of another kind.
    """
    routes = [route for route in app.routes if isinstance(route, Route)]
    if len(routes) < len(app.routes):
        raise UnguardedRoute("the application has mounted parts or sockets, which the guard does not know")
    return match_routes((route.methods or (), route.path, route.path_regex) for route in routes)


async def _load(
    server: ServerState, settings: Settings, load: Loader, traces: Traces | None, reread: ConfigReread | None
) -> None:
    began = time.perf_counter()
    observe = join_observers(server.metrics, traces)
    try:
        engine = await run_in_daemon_thread(lambda: load(settings, observe))
    except Exception as error:
        server.failure = f"the models could not be loaded: {error}"
        LOG.error("%s", server.failure, exc_info=None if isinstance(error, LoadError) else error)
        return
    freeze_heap()
    server.set_engine(engine, time.perf_counter() - began)
    server.changes = open_changes(engine, settings, server.aliases, server.metrics, observe)
    LOG.info("runtime: %s", engine.runtime)
    for name, way in engine.ways.items():
        LOG.info("%s: %s", name, way)
    LOG.info("rewards: %s; policies: %s", ", ".join(engine.rewards) or "none", ", ".join(engine.families) or "none")
    if engine.pool is not None:
        LOG.info("rewards that are loaded on demand: %s", ", ".join(engine.pool.offered) or "none")
    if engine.failure:
        LOG.error("not ready: %s", engine.failure)
    if reread and server.changes:
        await reread.run(server.changes)
