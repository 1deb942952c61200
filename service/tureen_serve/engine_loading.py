"""Load the engine that the settings name, and let its models change while it runs."""

import gc
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tureen_serve.changes.model_changes import ModelChanges
from tureen_serve.changes.room import Room
from tureen_serve.changes.served_rewards import ServedRewards
from tureen_serve.dialects.model_names import check_aliases
from tureen_serve.inference.engine import Engine, Reward
from tureen_serve.inference.lane import LaneRun
from tureen_serve.inference.model_pool import ModelPool
from tureen_serve.inference.native_heap import NativeHeap
from tureen_serve.inference.opened_lanes import open_backbone
from tureen_serve.inference.pooled_model import GIB, ModelEvent
from tureen_serve.inference.scorer_lane import ScorerLane
from tureen_serve.inference.shelf import Shelf
from tureen_serve.inference.text_limits import TextLimits
from tureen_serve.inference.upstream_lane import UpstreamLane
from tureen_serve.memory_plan import MIB, plan_memory, read_resident_bytes
from tureen_serve.runtimes import contract
from tureen_serve.runtimes.catalogue import LoadedModels
from tureen_serve.runtimes.late_loader import LateLoader
from tureen_serve.runtimes.load import LoadError, LoadOptions
from tureen_serve.runtimes.load import load_models as load_artifacts
from tureen_serve.runtimes.warm_up import measure_speeds
from tureen_serve.settings import ServerLimits, Settings
from tureen_serve.telemetry import Metrics

LOG = logging.getLogger(__name__)
EngineObserver = Callable[[LaneRun | ModelEvent], None]
Loader = Callable[[Settings, EngineObserver], Engine]


def load_engine(settings: Settings, observe: EngineObserver) -> Engine:
    """Load the models that the settings name.

    Raises:
        LoadError: a model or an alias cannot be served; the message says which and why.
    """
    options = _make_options(settings)
    loaded = load_artifacts(settings.rewards, settings.families, options)
    with ExitStack() as undo:
        undo.callback(loaded.close)
        bound_memory(settings.limits, loaded)
        rewards = {each.name: each for part in loaded.backbones for each in part.rewards}
        pool = _open_pool(settings, options, loaded, rewards, observe) if settings.rewards_root else None
        unknown = check_aliases(settings.aliases, rewards, pool.offered if pool else ())
        if unknown:
            raise LoadError(unknown)
        loaded = measure_speeds(loaded)
        undo.pop_all()
    lanes = {"queue_tokens": settings.limits.queue_tokens, "kept": settings.limits.kept_scores}
    texts = TextLimits(settings.limits.text_bytes, settings.limits.request_bytes)
    stuck = settings.limits.stuck_seconds
    return Engine(loaded, **lanes, observe=observe, pool=pool, limits=texts, stuck_seconds=stuck)


def _make_options(settings: Settings) -> LoadOptions:
    limits = contract.BatchLimits(settings.limits.batch_tokens, settings.limits.batch_rows)
    return LoadOptions(
        settings.runtime,
        settings.dtype,
        settings.device,
        settings.cache,
        limits,
        settings.limits.prompt_mib * MIB,
        settings.limits.text_mib * MIB // max(1, sum(each.upstream is None for each in settings.families)),
        settings.vllm,
        settings.control_marks,
        settings.bases,
    )


def open_changes(
    engine: Engine, settings: Settings, aliases: dict[str, str], metrics: Metrics, observe: EngineObserver
) -> ModelChanges | None:
    """Let the models of an engine change while it runs; None if it has no runtime that could load any.

    Args:
        aliases: those of the server, which a change may replace.
    """
    runtime, limits = engine.start.loader, settings.limits
    if runtime is None:
        return None
    lanes = [isinstance(lane, ScorerLane) for lane in engine.registry.lanes if not isinstance(lane, UpstreamLane)]
    plan = plan_memory(limits, read_resident_bytes(), sum(lanes), lanes.count(False), runtime.workspace_bytes)
    room = Room(limits, plan, runtime.workspace_bytes, engine.registry, runtime.limit_prompts)
    loader = LateLoader(_make_options(settings), runtime, engine.start.opened)
    start = partial(open_backbone, queue_tokens=limits.queue_tokens, kept=limits.kept_scores, observe=observe)

    def check(names: Mapping[str, str], rewards: Mapping[str, Reward]) -> str | None:
        return check_aliases(names, rewards, engine.pool.offered if engine.pool else ())

    served = ServedRewards(engine, loader, start, room, aliases, check)
    return ModelChanges(engine, served, settings.load_roots, metrics)


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
        taken = {*rewards, *settings.aliases}
        shelf = Shelf(settings.rewards_root.resolve(), taken, artifacts, started, settings.bases)
    except OSError as error:
        raise LoadError(f"rewards_root: {settings.rewards_root} cannot be read: {error}") from error
    loader = OnDemandLoader(options, loaded)
    return ModelPool(shelf, loader, start, None if bound is None else int(bound * GIB), observe)
