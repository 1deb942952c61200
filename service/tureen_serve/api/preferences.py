"""``POST /v1/preferences``: which of a prompt's candidates is preferred, by how much and how surely."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter

from tureen.errors import TureenError, Unprocessable
from tureen.wire import CandidateScore, ErrorDetail, Label, PreferencesReply, RankingLabel, TrlLabel
from tureen_core.template import Messages
from tureen_serve.api.pairwise import Compared, Contest, asks_pair_rewards, compare_items
from tureen_serve.api.reward_items import PreferencesBody
from tureen_serve.api.scoring import Ask, Scored, ask, candidates, usage
from tureen_serve.api.server_state import EngineDep, MetricsDep
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.api.together import answer, only
from tureen_serve.faults import describe_error, document_errors
from tureen_serve.generation.duels import Judged, Orders, shown
from tureen_serve.generation.weigh import judge, matrix, weigh
from tureen_serve.inference.engine import Engine, Group
from tureen_serve.telemetry import Metrics

LARGEST_MATRICES = 2**20

router = APIRouter(route_class=StrictRoute, tags=["rewards"])


@router.post("/v1/preferences", responses=document_errors(400, 409, 413, 415, 422, 503, 504))
async def label_items(body: PreferencesBody, engine: EngineDep, metrics: MetricsDep) -> PreferencesReply:
    """Label prompts with two or more candidates each; without preferences the asked rewards weigh the same."""
    return only(await label_each(engine, metrics, [body]))


async def label_each(
    engine: Engine, metrics: Metrics, bodies: Sequence[PreferencesBody]
) -> list[PreferencesReply | TureenError]:
    """The reply to each body, or the error that stands for it."""
    compared = [asks_pair_rewards(body, engine.rewards) for body in bodies]
    scored = iter(
        await _score_each(
            engine, metrics, [body for body, is_pair in zip(bodies, compared, strict=True) if not is_pair]
        )
    )
    return [
        await _compared(engine, metrics, body) if is_pair else next(scored)
        for body, is_pair in zip(bodies, compared, strict=True)
    ]


async def _score_each(
    engine: Engine, metrics: Metrics, bodies: Sequence[PreferencesBody]
) -> list[PreferencesReply | TureenError]:
    """By rewards that score each candidate."""

    def asks(body: PreferencesBody) -> Ask:
        wanted = ask(body, engine.rewards, weigh_all=True)
        _bound(body)
        return wanted

    return await answer(engine, metrics, bodies, asks, _reply, least=2)


async def _compared(engine: Engine, metrics: Metrics, body: PreferencesBody) -> PreferencesReply | TureenError:
    """By rewards that compare two candidates."""
    try:
        _bound(body)
        found = await compare_items(engine, metrics, body)
    except TureenError as error:
        return error
    return await asyncio.to_thread(_compared_reply, body, found)


def _reply(body: PreferencesBody, scored: Sequence[Scored], wanted: Ask) -> PreferencesReply:
    return PreferencesReply(
        fingerprint=dict(wanted.fingerprints),
        preferences=dict(wanted.preferences or {}),
        data=_labels(body, [_case(body, each, wanted) for each in scored]),
        usage=usage(scored),
    )


def _bound(body: PreferencesBody) -> None:
    """Refuse matrices that nobody could read: they grow with the square of the candidates."""
    entries = sum(len(item.candidates or ()) ** 2 for item in body.items) if body.matrix else 0
    if entries > LARGEST_MATRICES:
        message = f"the matrices would have {entries} entries and the limit is {LARGEST_MATRICES}; send fewer items"
        raise Unprocessable(message, param="matrix")


@dataclass(frozen=True)
class Case:
    """One item: its answers, what was judged of them or why nothing was, and the scores that it was judged by."""

    group: Group | None
    judged: Judged | TureenError | None
    candidates: Sequence[CandidateScore] = ()
    weighed: Sequence[float] = ()
    orders: Orders | None = None
    order_matrix: list[list[float]] | None = None
    truncated: bool = False


def _case(body: PreferencesBody, scored: Scored, wanted: Ask) -> Case:
    """The verdict, or why there is none: an item of which one candidate failed is not labelled by the others."""
    group = scored.group if isinstance(scored.group, Group) else None
    told = candidates(scored, wanted)
    failed = scored.error or next((outcome.error for outcome in scored.outcomes if outcome.error), None)
    if failed:
        return Case(group, failed, told)
    raws, weights = [outcome.raw for outcome in scored.outcomes], wanted.weights or {}
    verdict = judge(raws, weights, wanted.scales, body.tie_margin)
    judged = Judged(verdict, matrix(raws, weights, wanted.scales) if body.matrix else None)
    return Case(group, judged, told, [weigh(raw, weights, wanted.scales) for raw in raws])


def _compared_reply(body: PreferencesBody, found: Compared) -> PreferencesReply:
    return PreferencesReply(
        fingerprint=dict(found.wanted.fingerprints),
        preferences=dict(found.wanted.preferences or {}),
        data=_labels(body, [_compared_case(body, each) for each in found.contests]),
        usage=found.usage,
    )


def _compared_case(body: PreferencesBody, contest: Contest) -> Case:
    """The verdict of a contest, and how much the order of the two had to say."""
    matrix = shown(len(contest.group), contest.met) if body.matrix and contest.group and contest.judged else None
    verdict = contest.judged or contest.error
    return Case(contest.group, verdict, (), (), contest.orders(), matrix, contest.truncated)


def _labels(body: PreferencesBody, cases: Sequence[Case]) -> list[Label] | list[TrlLabel] | list[RankingLabel]:
    if body.format == "trl":
        return [_trl(index, case) for index, case in enumerate(cases)]
    if body.format == "ranking":
        return [_ranking(index, case) for index, case in enumerate(cases)]
    return [_full(index, case, body.matrix) for index, case in enumerate(cases)]


def _full(index: int, case: Case, with_matrix: bool) -> Label:
    if not isinstance(case.judged, Judged):
        return Label(index=index, candidates=list(case.candidates), error=_told(case))
    found = case.judged.matrix if with_matrix else None
    verdict = vars(case.judged.verdict)
    matrices = {"matrix": found, "order_matrix": case.order_matrix if found else None}
    told = {"orders": case.orders, "truncated": case.truncated, "candidates": list(case.candidates)}
    return Label(index=index, **verdict, **matrices, **told)


def _ranking(index: int, case: Case) -> RankingLabel:
    if not isinstance(case.judged, Judged):
        return RankingLabel(index=index, error=_told(case))
    return RankingLabel(index=index, ranking=case.judged.verdict.ranking)


def _trl(index: int, case: Case) -> TrlLabel:
    if not isinstance(case.judged, Judged) or case.group is None:
        return TrlLabel(index=index, error=_told(case))
    verdict = case.judged.verdict
    return TrlLabel(
        index=index,
        prompt=_plain(case.group.prompt),
        chosen=_plain(case.group.answers[verdict.chosen]),
        rejected=_plain(case.group.answers[verdict.rejected]),
        chosen_score=case.weighed[verdict.chosen] if case.weighed else None,
        rejected_score=case.weighed[verdict.rejected] if case.weighed else None,
        margin=verdict.margin,
        probability=verdict.probability,
        tie=verdict.tie,
    )


def _told(case: Case) -> ErrorDetail:
    return describe_error(
        case.judged if isinstance(case.judged, TureenError) else Unprocessable("there is nothing to label")
    )


def _plain(messages: Messages) -> list[dict[str, str]]:
    return [dict(message) for message in messages]
