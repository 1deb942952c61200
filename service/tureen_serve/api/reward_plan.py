"""Plan which rewards read which items of a body, and run the plans.

A request has one plan, and a chunk of a batch has many. Plans with the same rewards and settings share a call of the
engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from tureen.errors import ServerFault, TureenError
from tureen_serve.api.outcome_counts import count_outcomes
from tureen_serve.api.reward_items import build_group
from tureen_serve.api.reward_query import RewardBody, RewardQuery
from tureen_serve.generation.weigh import Scales, find_unusable_reward
from tureen_serve.inference.engine import Engine, Group, Outcome, Priority, ScoreInput, Steps
from tureen_serve.inference.pieces import run_pieces
from tureen_serve.inference.text_limits import TextLimits, take_inputs
from tureen_serve.telemetry import Metrics

T = TypeVar("T")
B = TypeVar("B", bound=RewardBody)

CountOutcomes = Callable[[Metrics, Sequence[Outcome], RewardQuery], None]

MANY = 64  # texts whose plan and reply are made in a thread; a thread costs more than a few of them
CUT_IT = "or send `truncate: true` to have it cut"


@dataclass(frozen=True)
class EngineCall:
    """The settings of a call of the engine. Plans with equal settings share one call."""

    objectives: tuple[str, ...]
    soup: tuple[tuple[str, float], ...]
    truncate: bool
    priority: Priority


@dataclass(frozen=True)
class RewardPlan(Generic[B]):
    """One body, ready for the engine.

    Attributes:
        query: the rewards that the body asks for.
        items: for each item of the body, the engine's input or the error of the item.
    """

    body: B
    query: RewardQuery
    items: Sequence[Group | Steps | TureenError]

    @property
    def inputs(self) -> list[Group | Steps]:
        """The items without errors."""
        return [item for item in self.items if not isinstance(item, TureenError)]

    @property
    def call(self) -> EngineCall:
        """The call of the engine that answers this plan."""
        soup = tuple(sorted((self.query.preferences or {}).items())) if self.query.soup else ()
        return EngineCall(self.query.objectives, soup, self.body.truncate, self.body.priority)


@dataclass(frozen=True)
class ScoredItem:
    """The outcomes of one item's texts, or the item's error. The ``param`` of an error starts at the body.

    Attributes:
        group: the engine's input; None if the item is an error.
    """

    group: Group | Steps | None
    outcomes: Sequence[Outcome] = ()
    error: TureenError | None = None


@dataclass(frozen=True)
class ScoredPlan(Generic[B]):
    """A plan and its scored items, in the order of the body's items."""

    plan: RewardPlan[B]
    items: Sequence[ScoredItem]


def plan_items(body: B, query: RewardQuery, least_candidates: int = 1) -> RewardPlan[B]:
    """Build the plan of a body.

    Args:
        query: the rewards that the body asks for.
        least_candidates: the smallest number of answers that an item may have.

    Raises:
        TureenError: an item cannot be read and the body says ``on_error: fail``.
    """
    items = [_read_item(body, index, least_candidates, query) for index in range(len(body.items))]
    return RewardPlan(body, query, items)


async def work_beside(body: RewardBody, work: Callable[[], T]) -> T:
    """Call ``work``, which reads a body or builds its reply: in a thread if the body has many texts."""
    texts = sum(len(item.candidates or item.steps or item.messages or ()) for item in body.items)
    return work() if texts <= MANY else await run_pieces(lambda _: work(), large=True)


def _read_item(body: RewardBody, index: int, least: int, query: RewardQuery) -> Group | Steps | TureenError:
    try:
        return build_group(body.items[index], least, query.reads)
    except TureenError as error:
        located = error.at(f"items[{index}]")
        if body.on_error == "fail":
            raise located from None
        return located


async def run_plan(engine: Engine, metrics: Metrics, plan: RewardPlan[B]) -> ScoredPlan[B]:
    """Score the items of one plan.

    Raises:
        TureenError: the whole call failed, or an item did and the body says ``on_error: fail``.
    """
    (result,) = await run_plans(engine, metrics, [plan])
    if isinstance(result, TureenError):
        raise result
    return result


async def run_plans(
    engine: Engine, metrics: Metrics, plans: Sequence[RewardPlan[B] | TureenError]
) -> list[ScoredPlan[B] | TureenError]:
    """Score the items of many plans. An error in ``plans`` is returned in its place.

    The calls of the engine run one after another. So which rows share a batch depends only on the bodies.
    """
    results: dict[int, ScoredPlan[B] | TureenError] = {}
    calls: dict[EngineCall, dict[int, RewardPlan[B]]] = {}
    for number, plan in enumerate(plans):
        if isinstance(plan, TureenError):
            results[number] = plan
        elif excess := _find_excess(plan, engine.limits):
            results[number] = excess
        else:
            calls.setdefault(plan.call, {})[number] = plan
    for sharing in calls.values():
        found = await _run_call(engine, metrics, list(sharing.values()))
        results.update(zip(sharing, found, strict=True))
    return [results[number] for number in range(len(plans))]


def _find_excess(plan: RewardPlan[B], limits: TextLimits) -> TureenError | None:
    """Return the error of a plan whose texts are too large together, before any is rendered."""
    try:
        take_inputs(plan.inputs, limits)
    except TureenError as error:
        return error
    return None


async def _run_call(
    engine: Engine, metrics: Metrics, plans: Sequence[RewardPlan[B]]
) -> list[ScoredPlan[B] | TureenError]:
    inputs = [each for plan in plans for each in plan.inputs]
    call, query = plans[0].call, plans[0].query
    try:
        found = await score_groups(engine, inputs, query, metrics, truncate=call.truncate, priority=call.priority)
    except TureenError as error:
        return [error] * len(plans)
    following = iter(found)
    return [_match_outcomes(plan, [next(following) for _ in plan.inputs]) for plan in plans]


def _match_outcomes(plan: RewardPlan[B], outcomes: Sequence[Sequence[Outcome]]) -> ScoredPlan[B] | TureenError:
    """Give each item its outcomes. With ``on_error: fail``, return the first error instead."""
    following = iter(outcomes)
    scored = []
    for index, item in enumerate(plan.items):
        if isinstance(item, TureenError):
            scored.append(ScoredItem(None, error=item))
            continue
        found = [_locate(outcome, index) for outcome in next(following)]
        failed = next((outcome.error for outcome in found if outcome.error), None)
        if failed and plan.body.on_error == "fail":
            return failed
        scored.append(ScoredItem(item, found))
    return ScoredPlan(plan, scored)


def _locate(outcome: Outcome, index: int) -> Outcome:
    """Return the outcome with its error's ``param`` starting at the body."""
    return outcome if outcome.error is None else replace(outcome, error=outcome.error.at(f"items[{index}]"))


async def score_groups(
    engine: Engine,
    groups: Sequence[ScoreInput],
    query: RewardQuery,
    metrics: Metrics,
    *,
    truncate: bool = False,
    priority: Priority = "default",
    remedy: str = CUT_IT,
    count: CountOutcomes = count_outcomes,
) -> list[list[Outcome]]:
    """Score groups in one call of the engine, and count the outcomes in the metrics.

    A reward that is not finite becomes an error, because JSON has no such number. The ``param`` of an error is relative
    to its group.

    Args:
        remedy: the end of the error message for a text that is too long: how to have it cut on this route.
        count: counts the outcomes of a group in the metrics.

    Raises:
        TureenError: the whole call failed.
    """
    if not groups:
        return []
    soup = query.preferences if query.soup else None
    found = await engine.score(groups, query.objectives, soup=soup, truncate=truncate, priority=priority)
    checked = [
        [_check_outcome(outcome, query.scales, group.param(place), remedy) for place, outcome in enumerate(outcomes)]
        for group, outcomes in zip(groups, found, strict=True)
    ]
    for outcomes in checked:
        count(metrics, outcomes, query)
    return checked


def _check_outcome(outcome: Outcome, scales: Scales, param: str, remedy: str) -> Outcome:
    unusable = find_unusable_reward(outcome.raw, scales)
    if unusable is not None:
        message = f"the reward {unusable} of this text is not finite"
        return replace(outcome, raw={}, error=ServerFault(message, param=param, code="non_finite_score"))
    error = outcome.error
    if error is not None and error.code == "context_length_exceeded":
        error = type(error)(f"{error.message}, {remedy}", param=error.param, code=error.code)
    return outcome if error is None else replace(outcome, raw={}, error=error)
