"""Build the scores of a reply from the engine's outcomes: raw, calibrated and weighted."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from tureen.wire import CandidateScore, ItemScore, Score, StepSummary, Usage
from tureen_core.calibration import resolve_scale
from tureen_core.steps import AGGREGATES, aggregate_steps
from tureen_serve.api.reward_plan import ScoredItem, ScoredPlan
from tureen_serve.api.reward_query import RewardBody, RewardQuery
from tureen_serve.faults import describe_error
from tureen_serve.generation.weigh import Scales
from tureen_serve.inference.engine import Outcome, Steps

B = TypeVar("B", bound=RewardBody)


def build_item_scores(scored: ScoredPlan[B]) -> list[ItemScore]:
    """Build the scores of every item."""
    query = scored.plan.query
    return [
        ItemScore(
            index=index,
            candidates=build_candidate_scores(item, query),
            summary=_summarise_steps(item, query),
            normalised=list_normalised(item.outcomes),
            error=describe_error(item.error) if item.error else None,
        )
        for index, item in enumerate(scored.items)
    ]


def _summarise_steps(item: ScoredItem, query: RewardQuery) -> dict[str, StepSummary] | None:
    """Aggregate the steps of an answer. Returns None if the item has no steps or one of them failed."""
    if not isinstance(item.group, Steps) or any(outcome.error for outcome in item.outcomes):
        return None
    found = {}
    for name, scale in query.scales.items():
        right = [resolve_scale(scale).probability(outcome.raw[name]) for outcome in item.outcomes]
        aggregates = {how: aggregate_steps(right, how) for how in AGGREGATES}
        found[name] = StepSummary(**aggregates, calibrated=scale is not None)
    return found


def build_candidate_scores(item: ScoredItem, query: RewardQuery) -> list[CandidateScore]:
    """Build the scores of one item's candidates, or of the steps of its answer."""
    stepped = isinstance(item.group, Steps)
    return [_build_candidate(index, outcome, query, stepped) for index, outcome in enumerate(item.outcomes)]


def _build_candidate(index: int, outcome: Outcome, query: RewardQuery, stepped: bool) -> CandidateScore:
    failed = outcome.error is not None
    found = {} if failed else build_scores(outcome.raw, query.scales, stepped)
    weights = query.weights
    reward = None
    if not failed and weights is not None:
        reward = math.fsum(weight * found[name].scaled for name, weight in weights.items())
    return CandidateScore(
        index=index,
        scores=None if failed else found,
        reward=reward,
        tokens=outcome.tokens,
        cached_tokens=outcome.cached,
        truncated=outcome.truncated,
        normalised=list(outcome.normalised),
        error=describe_error(outcome.error) if outcome.error else None,
    )


def list_normalised(outcomes: Sequence[Outcome]) -> list[str]:
    """List what was not read as it was sent in any of the texts."""
    return sorted({name for outcome in outcomes for name in outcome.normalised})


def build_scores(raw: Mapping[str, float], scales: Scales, stepped: bool = False) -> dict[str, Score]:
    """Build raw and calibrated rewards in the order of ``scales``. Without a calibration, ``calibrated`` is None.

    Args:
        stepped: the texts are steps. Then the raw reward is log-odds and the calibrated one is a probability.
    """
    found = {}
    for name, scale in scales.items():
        calibrated = None
        if scale is not None:
            calibrated = scale.probability(raw[name]) if stepped else scale.standardise(raw[name])
        found[name] = Score(raw=raw[name], calibrated=calibrated)
    return found


def count_tokens(scored: ScoredPlan[B]) -> Usage:
    """Count the tokens of all texts, cached ones included."""
    read = sum(outcome.tokens for item in scored.items for outcome in item.outcomes)
    return Usage(prompt_tokens=read, total_tokens=read)
