"""``/v1/models/{name}/load``, ``/unload`` and ``/shadow``: change a reward model while the server runs."""

from typing import Annotated

from fastapi import APIRouter, Depends

from tureen.errors import Conflict
from tureen.wire import Drift, LoadRequest, ModelChange, ShadowComparison, ShadowReport, ShadowRequest
from tureen_serve.api.server_state import ServerStateDep
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.changes.model_changes import ModelChanges
from tureen_serve.changes.shadow import Shadow
from tureen_serve.faults import document_errors
from tureen_serve.watching.agreement import Agreement
from tureen_serve.watching.drift import DriftWindow

router = APIRouter(route_class=StrictRoute, tags=["models"])
CHANGE = document_errors(400, 404, 409, 413, 415, 422, 503, 504)
LOOK = document_errors(404, 409, 422, 503, 504)


async def _changes(server: ServerStateDep) -> ModelChanges:
    server.require_ready()
    if server.changes is None:
        raise Conflict("the models of this server cannot change while it runs", code="model_fixed")
    return server.changes


ChangesDep = Annotated[ModelChanges, Depends(_changes)]


@router.post("/v1/models/{name}/load", responses=CHANGE)
async def load_model(name: str, body: LoadRequest, changes: ChangesDep) -> ModelChange:
    """Load a version of a reward beside the one that is served, prove its probes, and serve it from then on.

    Requests in flight finish on the old version. If anything fails, the old version stays. A caller who leaves, or
    whose deadline passes, gives the load up.
    """
    return await changes.load(name, body)


@router.post("/v1/models/{name}/unload", responses=CHANGE)
async def unload_model(name: str, changes: ChangesDep) -> ModelChange:
    """Stop serving a reward, with all rewards of the same artifact. Requests in flight finish on it."""
    return await changes.unload(name)


@router.post("/v1/models/{name}/shadow", responses=CHANGE)
async def begin_shadow(name: str, body: ShadowRequest, changes: ChangesDep) -> ShadowReport:
    """Let the next version of a reward score a share of its texts too, without answering anyone."""
    return _report(name, await changes.begin_shadow(name, body))


@router.get("/v1/models/{name}/shadow", responses=LOOK)
async def report_shadow(name: str, changes: ChangesDep) -> ShadowReport:
    """Return how far the shadow of a reward agrees with the version that is served."""
    return _report(name, changes.require_shadow(name))


@router.delete("/v1/models/{name}/shadow", responses=LOOK)
async def end_shadow(name: str, changes: ChangesDep) -> ShadowReport:
    """End the shadow of a reward, and return what was known of it."""
    report = _report(name, changes.require_shadow(name))
    await changes.end_shadow(name)
    return report


def _report(name: str, shadow: Shadow) -> ShadowReport:
    return ShadowReport(
        id=name,
        version=shadow.opened.artifact.manifest.version or None,
        fingerprint=shadow.opened.fingerprint,
        share=shadow.share,
        compared=shadow.counts["compared"],
        dropped=shadow.counts["dropped"],
        failed=shadow.counts["failed"],
        waiting=shadow.waiting,
        comparisons=[_describe(each, shadow.find_agreement(each)) for each in shadow.opened.names],
    )


def _describe(name: str, found: Agreement | None) -> ShadowComparison:
    if found is None:
        return ShadowComparison(reward=name)
    return ShadowComparison(
        reward=name,
        live_fingerprint=found.live,
        unit="deviations" if found.fitted else "raw",
        texts=found.texts,
        pairs=found.pairs,
        pair_agreement=found.pair_agreement,
        rank_correlation=found.compute_rank_correlation(),
        mean_difference=found.mean_difference,
        largest_difference=found.largest_difference,
        live_drift=_describe_drift(found.live_drift),
        shadow_drift=_describe_drift(found.shadow_drift),
    )


def _describe_drift(window: DriftWindow) -> Drift:
    return Drift(population_stability=window.compute_stability(), kolmogorov_smirnov=window.compute_distance())
