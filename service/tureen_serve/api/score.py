"""``POST /v1/score``: raw, calibrated and weighted rewards of conversations."""

from collections.abc import Sequence

from fastapi import APIRouter

from tureen.errors import TureenError, Unprocessable
from tureen.wire import ScoreReply
from tureen_serve.api.reward_items import ScoreBody, find_input_kind
from tureen_serve.api.scoring import Ask, Scored, ask, items, usage
from tureen_serve.api.server_state import EngineDep, MetricsDep
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.api.together import answer, only
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import Engine
from tureen_serve.telemetry import Metrics

MOST_STEPS = 4096

router = APIRouter(route_class=StrictRoute, tags=["rewards"])


@router.post("/v1/score", responses=document_errors(400, 409, 413, 415, 422, 503, 504))
async def score_items(body: ScoreBody, engine: EngineDep, metrics: MetricsDep) -> ScoreReply:
    """Score finished conversations, a prompt's candidates, or an answer's steps by the loaded reward models."""
    return only(await score_each(engine, metrics, [body]))


async def score_each(engine: Engine, metrics: Metrics, bodies: Sequence[ScoreBody]) -> list[ScoreReply | TureenError]:
    """The reply to each body, or the error that stands for it."""

    def asks(body: ScoreBody) -> Ask:
        _bound(body)
        return ask(body, engine.rewards, find_input_kind(body.items))

    return await answer(engine, metrics, bodies, asks, _reply)


def _bound(body: ScoreBody) -> None:
    """Refuse more steps than one request should wait for: each is a text with all that stands before it."""
    steps = sum(len(item.steps or ()) for item in body.items)
    if steps > MOST_STEPS:
        raise Unprocessable(f"{steps} steps are sent and the limit is {MOST_STEPS}; send fewer items", param="items")


def _reply(_: ScoreBody, scored: Sequence[Scored], wanted: Ask) -> ScoreReply:
    return ScoreReply(
        fingerprint=dict(wanted.fingerprints),
        preferences=dict(wanted.preferences) if wanted.preferences is not None else None,
        data=items(scored, wanted),
        usage=usage(scored),
    )
