"""Build the application: middleware, routes, and an engine that loads in a thread while health is already answered."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from tureen_serve.admission import Admission, InFlight
from tureen_serve.api import batches, chat, files, models, ops, preferences, reading_headers, score
from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS
from tureen_serve.api.server_state import ServerState
from tureen_serve.batches.batch_service import BatchService
from tureen_serve.dialects import DIALECTS, ERROR_BUILDERS
from tureen_serve.dialects.model_names import check_aliases
from tureen_serve.faults import HANDLERS, Faults, build_openai_error
from tureen_serve.inference.daemon_thread import run_in_daemon_thread
from tureen_serve.inference.engine import Engine, Reward
from tureen_serve.inference.heap import freeze_heap
from tureen_serve.inference.lane import LaneRun
from tureen_serve.inference.model_pool import ModelPool
from tureen_serve.inference.native_heap import HeapTrimmer, NativeHeap
from tureen_serve.inference.pooled_model import GIB, ModelEvent
from tureen_serve.inference.registry import open_backbone
from tureen_serve.inference.shelf import Shelf
from tureen_serve.inference.text_limits import TextLimits
from tureen_serve.memory_plan import MIB, plan_memory, read_resident_bytes
from tureen_serve.request_telemetry import RouteTemplates, Telemetry
from tureen_serve.runtimes import contract
from tureen_serve.runtimes.catalogue import LoadedModels
from tureen_serve.runtimes.load import LoadError, LoadOptions
from tureen_serve.runtimes.load import load_models as load_artifacts
from tureen_serve.security.audit import Audit
from tureen_serve.security.guard import Guard
from tureen_serve.security.headers import SafeHeaders
from tureen_serve.security.key_watch import KeyWatch
from tureen_serve.security.scopes import RouteScopes, UnguardedRoute, match_routes
from tureen_serve.settings import ServerLimits, Settings
from tureen_serve.traces import Traces, Tracing, join_observers

LOG = logging.getLogger(__name__)
EngineObserver = Callable[[LaneRun | ModelEvent], None]
Loader = Callable[[Settings, EngineObserver], Engine]
CORS: Mapping[str, Any] = {  # no cookies: a page must have a key of its own
    "allow_methods": ("GET", "POST", "PUT", "DELETE"),
    "allow_headers": ("*",),
    "expose_headers": ("x-request-id", "retry-after", reading_headers.NORMALISED, reading_headers.TRUNCATED),
}
OPENAI_ROUTERS = (chat.router, files.router, batches.router, models.router)
OPENAI_ERRORS = {
    route.path: build_openai_error
    for router in OPENAI_ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
}


def load_engine(settings: Settings, observe: EngineObserver) -> Engine:
    """Load the models that the settings name.

    Raises:
        LoadError: a model or an alias cannot be served; the message says which and why.
    """
    limits = contract.BatchLimits(settings.limits.batch_tokens, settings.limits.batch_rows)
    options = LoadOptions(
        settings.runtime,
        settings.dtype,
        settings.device,
        settings.cache,
        limits,
        settings.limits.prompt_mib * MIB,
        settings.limits.text_mib * MIB // max(1, len(settings.families)),
        settings.vllm,
        settings.control_marks,
    )
    loaded = load_artifacts(settings.rewards, settings.families, options)
    with ExitStack() as undo:
        undo.callback(loaded.close)
        bound_memory(settings.limits, loaded)
        rewards = {each.name: each for part in loaded.backbones for each in part.rewards}
        pool = _open_pool(settings, options, loaded, rewards, observe) if settings.rewards_root else None
        unknown = check_aliases(settings.aliases, rewards, pool.offered if pool else ())
        if unknown:
            raise LoadError(unknown)
        undo.pop_all()
    lanes = {"queue_tokens": settings.limits.queue_tokens, "kept": settings.limits.kept_scores}
    texts = TextLimits(settings.limits.text_bytes, settings.limits.request_bytes)
    stuck = settings.limits.stuck_seconds
    return Engine(loaded, **lanes, observe=observe, pool=pool, limits=texts, stuck_seconds=stuck)


def bound_memory(limits: ServerLimits, loaded: LoadedModels) -> None:
    """Tell the most memory that this process takes, and keep to ``limits.memory_gib``.

    Raises:
        LoadError: that is too little.
    """
    if loaded.loader is None:
        return
    gc.collect()
    NativeHeap().trim()
    plan = plan_memory(
        limits, read_resident_bytes(), len(loaded.backbones), len(loaded.policies), loaded.loader.workspace_bytes
    )
    try:
        plan = plan.fit(limits.memory_gib)
    except ValueError as error:
        raise LoadError(str(error)) from error
    loaded.loader.limit_prompts(plan.parts["prompts"])
    LOG.info("memory: %s", plan)


def _open_pool(
    settings: Settings,
    options: LoadOptions,
    loaded: LoadedModels,
    rewards: Mapping[str, Reward],
    observe: EngineObserver,
) -> ModelPool:
    """Open the pool of the rewards root. Only manifests are read.

    Raises:
        LoadError: the root cannot be read.
    """
    from tureen_serve.runtimes.on_demand import OnDemandLoader  # imports transformers' models, which vLLM may not need

    assert settings.rewards_root is not None
    artifacts = {each.artifact.name for each in rewards.values()}
    start = partial(
        open_backbone, queue_tokens=settings.limits.queue_tokens, kept=settings.limits.kept_scores, observe=observe
    )
    bound = settings.rewards_memory_gib
    try:
        started = [Path(each.path).expanduser().resolve() for each in settings.rewards]
        shelf = Shelf(settings.rewards_root.resolve(), {*rewards, *settings.aliases}, artifacts, started)
    except OSError as error:
        raise LoadError(f"rewards_root: {settings.rewards_root} cannot be read: {error}") from error
    loader = OnDemandLoader(options, loaded)
    return ModelPool(shelf, loader, start, None if bound is None else int(bound * GIB), observe)


def create_app(settings: Settings, load: Loader = load_engine) -> FastAPI:
    """Create the application.

    Args:
        load: loads the engine. It is called once, in a thread, when the application starts.

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
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001
        loading = asyncio.create_task(_load(server, settings, load, traces))
        opening = asyncio.create_task(jobs.open())
        watching = asyncio.create_task(keys.run()) if keys else None
        trimmer = HeapTrimmer(NativeHeap())
        trimmer.start()
        yield
        trimmer.close()
        for task in filter(None, (loading, opening, watching)):
            task.cancel()
        await jobs.close()
        if server.engine is not None:
            await server.engine.close()
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
    for router in (score.router, preferences.router, *OPENAI_ROUTERS, ops.router, *(each.router for each in DIALECTS)):
        app.include_router(router)
    # the middleware that is added last runs first
    uploads = {files.UPLOAD: settings.batches.file_bytes + files.FORM_BYTES}
    app.add_middleware(Admission, limits=settings.limits, uploads=uploads, held=app.state.in_flight)
    scopes = _find_scopes(app)
    app.add_middleware(Guard, ring=(lambda: keys.ring) if keys else None, scopes=scopes, settings=settings)
    app.add_middleware(Faults, builders={**OPENAI_ERRORS, **ERROR_BUILDERS})
    app.add_middleware(Audit, scopes=scopes)
    if settings.access.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.access.cors_origins, **CORS)
    app.add_middleware(SafeHeaders)
    if traces:
        app.add_middleware(Tracing, traces=traces)
    app.add_middleware(Telemetry, metrics=server.metrics, templates=RouteTemplates(app.routes))
    return app


def _find_scopes(app: FastAPI) -> RouteScopes:
    """Find the scope of every route.

    Raises:
        UnguardedRoute: a route has none, or is of another kind.
    """
    routes = [route for route in app.routes if isinstance(route, Route)]
    if len(routes) < len(app.routes):
        raise UnguardedRoute("the application has mounted parts or sockets, which the guard does not know")
    return match_routes((route.methods or (), route.path, route.path_regex) for route in routes)


async def _load(server: ServerState, settings: Settings, load: Loader, traces: Traces | None) -> None:
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
    LOG.info("runtime: %s", engine.runtime)
    for name, way in engine.ways.items():
        LOG.info("%s: %s", name, way)
    LOG.info("rewards: %s; policies: %s", ", ".join(engine.rewards) or "none", ", ".join(engine.families) or "none")
    if engine.pool is not None:
        LOG.info("rewards that are loaded on demand: %s", ", ".join(engine.pool.offered) or "none")
    if engine.failure:
        LOG.error("not ready: %s", engine.failure)
