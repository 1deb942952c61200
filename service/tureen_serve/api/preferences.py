"""``POST /v1/preferences``: label which candidate of a prompt is preferred, with its margin and probability."""

from collections.abc import Mapping, Sequence
from functools import partial

from fastapi import APIRouter

from tureen.errors import TureenError, Unprocessable
from tureen.wire import PreferencesReply
from tureen_core.calibration import CALIBRATE
from tureen_serve.api.label_replies import build_comparison_reply, build_label_reply
from tureen_serve.api.outcome_counts import count_labels
from tureen_serve.api.pairwise import asks_pair_rewards, plan_comparisons, run_comparisons
from tureen_serve.api.reward_items import PreferencesBody, check_matrices
from tureen_serve.api.reward_plan import RewardPlan, ScoredPlan, plan_items, run_plan, run_plans, work_beside
from tureen_serve.api.reward_query import RewardQuery, read_query
from tureen_serve.api.server_state import EngineDep, MetricsDep
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.api.wanted_rewards import answer_by_models, want_rewards
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import Engine, Reward
from tureen_serve.inference.pieces import run_pieces
from tureen_serve.telemetry import Metrics

router = APIRouter(route_class=StrictRoute, tags=["rewards"])


@router.post("/v1/preferences", responses=document_errors(400, 409, 413, 415, 422, 503, 504))
async def label_items(body: PreferencesBody, engine: EngineDep, metrics: MetricsDep) -> PreferencesReply:
    """Label prompts with two or more candidates each. Without `preferences`, all rewards have the same weight."""
    await want_rewards(engine, body)
    if asks_pair_rewards(body, engine.rewards):
        return await _compare(engine, metrics, body)
    plan = await work_beside(body, lambda: plan_labels(body, engine.rewards))
    scored = await run_plan(engine, metrics, plan)
    return count_labels(metrics, await work_beside(body, lambda: build_label_reply(scored)))


async def _compare(engine: Engine, metrics: Metrics, body: PreferencesBody) -> PreferencesReply:
    plan = plan_comparisons(body, engine.rewards)
    compared = await run_comparisons(engine, metrics, plan)
    return count_labels(metrics, await work_beside(body, lambda: build_comparison_reply(compared)))


async def label_each(
    engine: Engine, metrics: Metrics, bodies: Sequence[PreferencesBody]
) -> list[PreferencesReply | TureenError]:
    """Label many bodies. A body that fails gets an error in its place.

    Bodies whose candidates are scored run first; those with the same rewards and settings share a call of the engine.
    Bodies whose candidates are compared in pairs run after them, one at a time.
    """
    return await answer_by_models(engine, bodies, partial(_label_together, metrics))


async def _label_together(
    metrics: Metrics, engine: Engine, bodies: Sequence[PreferencesBody]
) -> list[PreferencesReply | TureenError]:
    compares = [asks_pair_rewards(body, engine.rewards) for body in bodies]
    plans = [
        _plan_or_error(body, engine.rewards) for body, by_pairs in zip(bodies, compares, strict=True) if not by_pairs
    ]
    scored = await run_plans(engine, metrics, plans)
    replies = await run_pieces(lambda _: _build_replies(scored), large=True)
    labelled = iter([each if isinstance(each, TureenError) else count_labels(metrics, each) for each in replies])
    return [
        await _compare_or_error(engine, metrics, body) if by_pairs else next(labelled)
        for body, by_pairs in zip(bodies, compares, strict=True)
    ]


def plan_labels(body: PreferencesBody, rewards: Mapping[str, Reward]) -> RewardPlan[PreferencesBody]:
    """Plan which rewards score the candidates of a body.

    Raises:
        TureenError: the loaded rewards cannot answer the body.
    """
    query = read_query(body, rewards, weigh_all=True)
    _check_tie_margin(body, query)
    check_matrices(body)
    return plan_items(body, query, least_candidates=2)


def _check_tie_margin(body: PreferencesBody, query: RewardQuery) -> None:
    """Refuse a ``tie_margin`` for a reward without a calibration: the margin has no known unit."""
    if body.tie_margin and not query.calibrated:
        names = ", ".join(name for name, scale in query.scales.items() if scale is None)
        message = f"{names} has no calibration, so a margin in deviations is not defined for it"
        remedy = "leave `tie_margin` out and compare `margin` yourself, or calibrate the reward with"
        raise Unprocessable(f"{message}; {remedy} {CALIBRATE}", param="tie_margin", code="uncalibrated_reward")


def _plan_or_error(body: PreferencesBody, rewards: Mapping[str, Reward]) -> RewardPlan[PreferencesBody] | TureenError:
    try:
        return plan_labels(body, rewards)
    except TureenError as error:
        return error


async def _compare_or_error(engine: Engine, metrics: Metrics, body: PreferencesBody) -> PreferencesReply | TureenError:
    try:
        return await _compare(engine, metrics, body)
    except TureenError as error:
        return error


def _build_replies(scored: Sequence[ScoredPlan[PreferencesBody] | TureenError]) -> list[PreferencesReply | TureenError]:
    return [each if isinstance(each, TureenError) else build_label_reply(each) for each in scored]
