"""``POST /v1/score``: raw, calibrated and weighted rewards of conversations."""

from collections.abc import Mapping, Sequence
from functools import partial

from fastapi import APIRouter

from tureen.errors import TureenError, Unprocessable
from tureen.wire import ScoreReply
from tureen_serve.api.reward_items import ScoreBody, find_input_kind
from tureen_serve.api.reward_plan import RewardPlan, ScoredPlan, plan_items, run_plan, run_plans, work_beside
from tureen_serve.api.reward_query import read_query
from tureen_serve.api.reward_replies import build_item_scores, count_tokens
from tureen_serve.api.server_state import EngineDep, MetricsDep
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.api.wanted_rewards import answer_by_models, want_rewards
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import Engine, Reward
from tureen_serve.inference.pieces import run_pieces
from tureen_serve.telemetry import Metrics

MOST_STEPS = 4096

router = APIRouter(route_class=StrictRoute, tags=["rewards"])


@router.post("/v1/score", responses=document_errors(400, 409, 413, 415, 422, 503, 504))
async def score_items(body: ScoreBody, engine: EngineDep, metrics: MetricsDep) -> ScoreReply:
    """Score finished conversations, the candidates of a prompt, or the steps of an answer."""
    await want_rewards(engine, body)
    plan = await work_beside(body, lambda: plan_score(body, engine.rewards))
    scored = await run_plan(engine, metrics, plan)
    return await work_beside(body, lambda: build_score_reply(scored))


async def score_each(engine: Engine, metrics: Metrics, bodies: Sequence[ScoreBody]) -> list[ScoreReply | TureenError]:
    """Score many bodies. Bodies with the same rewards and settings share a call of the engine.

    A body that fails gets an error in its place.
    """
    return await answer_by_models(engine, bodies, partial(_score_together, metrics))


async def _score_together(
    metrics: Metrics, engine: Engine, bodies: Sequence[ScoreBody]
) -> list[ScoreReply | TureenError]:
    plans = [_plan_or_error(body, engine.rewards) for body in bodies]
    scored = await run_plans(engine, metrics, plans)
    return await run_pieces(lambda _: _build_replies(scored), large=True)


def plan_score(body: ScoreBody, rewards: Mapping[str, Reward]) -> RewardPlan[ScoreBody]:
    """Plan which rewards read which texts of a body.

    Raises:
        TureenError: the loaded rewards cannot answer the body.
    """
    _check_size(body)
    return plan_items(body, read_query(body, rewards, find_input_kind(body.items)))


def build_score_reply(scored: ScoredPlan[ScoreBody]) -> ScoreReply:
    """Build the reply to a body whose items are scored."""
    query = scored.plan.query
    return ScoreReply(
        fingerprint=dict(query.fingerprints),
        preferences=dict(query.preferences) if query.preferences is not None else None,
        data=build_item_scores(scored),
        usage=count_tokens(scored),
    )


def _plan_or_error(body: ScoreBody, rewards: Mapping[str, Reward]) -> RewardPlan[ScoreBody] | TureenError:
    try:
        return plan_score(body, rewards)
    except TureenError as error:
        return error


def _build_replies(scored: Sequence[ScoredPlan[ScoreBody] | TureenError]) -> list[ScoreReply | TureenError]:
    return [each if isinstance(each, TureenError) else build_score_reply(each) for each in scored]


def _check_size(body: ScoreBody) -> None:
    """Refuse too many steps. Each step is scored as a text of its own, with the prompt and all steps before it."""
    steps = sum(len(item.steps or ()) for item in body.items)
    if steps > MOST_STEPS:
        message = f"the request has {steps} steps and the limit is {MOST_STEPS}; send fewer items"
        raise Unprocessable(message, param="items")
