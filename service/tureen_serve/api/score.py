"""``POST /v1/score``: raw, calibrated and weighted rewards of conversations."""

import asyncio

from fastapi import APIRouter

from tureen.wire import ScoreReply
from tureen_serve.api.house import Meters, Ready
from tureen_serve.api.items import ScoreBody
from tureen_serve.api.parse import StrictRoute
from tureen_serve.api.scoring import ask, items, score, usage
from tureen_serve.faults import documented

router = APIRouter(route_class=StrictRoute, tags=["rewards"])


@router.post("/v1/score", responses=documented(400, 409, 413, 415, 422, 503, 504))
async def score_items(body: ScoreBody, engine: Ready, metrics: Meters) -> ScoreReply:
    """Score finished conversations, or a prompt's candidates, by the loaded reward models."""
    wanted = ask(body, engine.rewards)
    scored = await score(engine, body, wanted, metrics)
    return ScoreReply(
        fingerprint=dict(wanted.fingerprints),
        preferences=dict(wanted.preferences) if wanted.preferences is not None else None,
        data=await asyncio.to_thread(items, scored, wanted),
        usage=usage(scored),
    )
