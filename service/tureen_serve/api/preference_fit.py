"""``POST /v1/preferences/fit``: find the preference weights that explain a person's choices between two answers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter

from tureen.errors import TureenError, Unprocessable
from tureen.wire import MAX_OBJECTIVES, ChoicePair, FitReply, FitRequest, ScoreItem, Usage
from tureen_core.calibration import check_common_scale, resolve_scale
from tureen_core.preference import check_name
from tureen_core.weight_fit import describe_fit, fit_weights
from tureen_core.weight_posterior import FitError
from tureen_serve.api.reward_items import ScoreBody
from tureen_serve.api.reward_plan import ScoredPlan, run_plan, work_beside
from tureen_serve.api.reward_replies import count_tokens
from tureen_serve.api.score import plan_score
from tureen_serve.api.server_state import EngineDep, MetricsDep
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.api.wanted_rewards import want_rewards
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import Engine
from tureen_serve.inference.pieces import GoOn, run_pieces
from tureen_serve.telemetry import Metrics

router = APIRouter(route_class=StrictRoute, tags=["rewards"])

Rewards = Sequence[Mapping[str, float]]
_CANDIDATE = re.compile(r"^items\[(\d+)\](?:\.candidates\[([01])\])?")


@dataclass(frozen=True)
class ScoredChoices:
    """The rewards of the chosen and of the other answers, and what scored them."""

    chosen: Rewards
    rejected: Rewards
    fingerprint: Mapping[str, str]
    usage: Usage


@router.post("/v1/preferences/fit", responses=document_errors(400, 409, 413, 415, 422, 503, 504))
async def fit_preferences(body: FitRequest, engine: EngineDep, metrics: MetricsDep) -> FitReply:
    """Fit preference weights to choices between two answers, given as texts or as their rewards."""
    check_name(body.preset, "preset")
    choices = _read_rewards(body) if body.pairs[0].has_rewards else await _score(engine, metrics, body)
    return await run_pieces(lambda go_on: _fit(body, choices, go_on), large=True)


def _fit(body: FitRequest, choices: ScoredChoices, go_on: GoOn) -> FitReply:
    try:
        fit = fit_weights(choices.chosen, choices.rejected, body.level, body.width, go_on)
    except FitError as error:
        raise Unprocessable(str(error), param="pairs") from error
    return FitReply(**describe_fit(fit, body.preset), fingerprint=dict(choices.fingerprint), usage=choices.usage)


def _read_rewards(body: FitRequest) -> ScoredChoices:
    """Read the rewards that the pairs have.

    Raises:
        Unprocessable: an objective has no name, or a pair has other objectives than the first one.
    """
    first = body.pairs[0].chosen_rewards or {}
    if not 2 <= len(first) <= MAX_OBJECTIVES:
        message = f"there are {len(first)} objectives; give 2 to {MAX_OBJECTIVES}"
        raise Unprocessable(message, param="pairs[0].chosen_rewards")
    for name in first:
        check_name(name, f"pairs[0].chosen_rewards.{name}")
    for index, pair in enumerate(body.pairs):
        for field, rewards in (("chosen_rewards", pair.chosen_rewards), ("rejected_rewards", pair.rejected_rewards)):
            if (rewards or {}).keys() != first.keys():
                message = f"it has the objectives {', '.join(sorted(rewards or {})) or 'none'}, and the first pair has"
                remedy = f"{', '.join(sorted(first))}; give every answer the same ones"
                raise Unprocessable(f"{message} {remedy}", param=f"pairs[{index}].{field}")
    chosen = [pair.chosen_rewards or {} for pair in body.pairs]
    return ScoredChoices(chosen, [pair.rejected_rewards or {} for pair in body.pairs], {}, Usage())


async def _score(engine: Engine, metrics: Metrics, body: FitRequest) -> ScoredChoices:
    """Score the texts of the pairs by the loaded rewards, calibrated.

    Raises:
        TureenError: a reward is not loaded or has no calibration, or a text cannot be scored; ``param`` names the field
            of the request.
    """
    asked = body.model_dump(include={"rewards", "truncate", "fingerprint", "priority"})
    scoring = ScoreBody(items=[_make_item(pair) for pair in body.pairs], **asked)
    try:
        await want_rewards(engine, scoring)
        plan = await work_beside(scoring, lambda: plan_score(scoring, engine.rewards))
        _check_rewards(plan.query.objectives)
        check_common_scale(plan.query.objectives, plan.query.scales, "rewards")
        scored = await run_plan(engine, metrics, plan)
    except TureenError as error:
        raise error.copy(_name_field(error.param)) from None
    return _read_scored(scored)


def _make_item(pair: ChoicePair) -> ScoreItem:
    answers = {"prompt": pair.prompt, "candidates": [pair.chosen, pair.rejected]}
    return ScoreItem(**answers, tools=pair.tools, chat_template_kwargs=pair.chat_template_kwargs)


def _check_rewards(names: Sequence[str]) -> None:
    if not 2 <= len(names) <= MAX_OBJECTIVES:
        message = f"weights are between 2 to {MAX_OBJECTIVES} rewards, and these are {', '.join(names)}"
        raise Unprocessable(f"{message}; name others in `rewards`", param="rewards")


def _name_field(param: str | None) -> str | None:
    """Name the field of this request where an error names one of the scoring: an item is a pair."""

    def rename(found: re.Match[str]) -> str:
        side = {"0": ".chosen", "1": ".rejected"}.get(found[2] or "", "")
        return f"pairs[{found[1]}]{side}"

    return param and _CANDIDATE.sub(rename, param)


def _read_scored(scored: ScoredPlan[ScoreBody]) -> ScoredChoices:
    scales = {name: resolve_scale(scale) for name, scale in scored.plan.query.scales.items()}
    chosen, rejected = (
        [
            {name: scale.standardise(item.outcomes[side].raw[name]) for name, scale in scales.items()}
            for item in scored.items
        ]
        for side in (0, 1)
    )
    return ScoredChoices(chosen, rejected, scored.plan.query.fingerprints, count_tokens(scored))
