"""``/v1/batches``: OpenAI's batch API for our routes."""

import hashlib
import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query

from tureen.wire import Batch, BatchList, BatchRequest
from tureen_serve.api.files import BatchesDep, ViewerDep
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.batches.batch_service import BatchService
from tureen_serve.batches.records import Viewer
from tureen_serve.faults import document_openai_errors
from tureen_serve.inference.demand import NO_TENANT
from tureen_serve.security.callers import require_scope
from tureen_serve.security.scopes import SCOPES

router = APIRouter(route_class=StrictRoute, tags=["batches"])
Key = Annotated[str | None, Header(min_length=1, max_length=255)]


@router.post("/v1/batches", responses=document_openai_errors(400, 404, 409, 413, 415, 422, 503, 504))
async def create(body: BatchRequest, batches: BatchesDep, viewer: ViewerDep, idempotency_key: Key = None) -> Batch:
    """Run every line of an uploaded file. Requests of a tenant with the same `Idempotency-Key` make only one batch.

    The key needs the scope of the batch's endpoint too.
    """
    require_scope(SCOPES["POST", body.endpoint])
    if idempotency_key is None:
        made = await batches.io(batches.opened().store.create_batch, body, None, viewer)
    else:
        made = await _once(batches, body, _digest_key(idempotency_key, viewer), viewer)
    batches.opened().wake()
    return made


def _digest_key(key: str, viewer: Viewer) -> str:
    """Digest an idempotency key of a tenant. Without one it is as it was before there were tenants."""
    own = key if viewer.tenant == NO_TENANT else f"{viewer.tenant}\0{key}"
    return hashlib.sha256(own.encode()).hexdigest()


async def _once(batches: BatchService, body: BatchRequest, key: str, viewer: Viewer) -> Batch:
    """Create the batch of an idempotency key, or return the one that exists."""
    store = batches.opened().store
    fields: dict[str, Any] = body.model_dump()
    fingerprint = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    known = await batches.io(store.claim_key, key, fingerprint)
    if known is not None:
        return known
    try:
        return await batches.io(store.create_batch, body, key, viewer)
    except Exception:
        await batches.io(store.release_key, key)
        raise


@router.get("/v1/batches", responses=document_openai_errors(404, 422, 503, 504))
async def batches(
    batches: BatchesDep,
    viewer: ViewerDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> BatchList:
    """List batches, newest first."""
    return await batches.io(batches.opened().store.list_batches, limit, after, viewer)


@router.get("/v1/batches/{batch_id}", responses=document_openai_errors(404, 422, 503, 504))
async def batch(batch_id: str, batches: BatchesDep, viewer: ViewerDep) -> Batch:
    """Return a batch with its current state and counts."""
    return await batches.io(batches.opened().store.get_batch, batch_id, viewer)


@router.post("/v1/batches/{batch_id}/cancel", responses=document_openai_errors(400, 404, 409, 413, 415, 422, 503, 504))
async def cancel(batch_id: str, batches: BatchesDep, viewer: ViewerDep) -> Batch:
    """Cancel a batch. Finished chunks are kept, and no further line is started."""
    cancelled = await batches.io(batches.opened().store.cancel_batch, batch_id, viewer)
    batches.opened().wake()
    return cancelled
