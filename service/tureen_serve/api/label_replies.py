"""Build the labels of ``/v1/preferences`` in the ``format`` of the body: ``full``, ``trl`` or ``ranking``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tureen.errors import TureenError, Unprocessable
from tureen.wire import CandidateScore, ErrorDetail, Label, PreferencesReply, RankingLabel, TrlLabel
from tureen_core.turns import Messages
from tureen_serve.api.pairwise import ComparisonPlan, Tournament
from tureen_serve.api.reward_items import PreferencesBody
from tureen_serve.api.reward_plan import ScoredItem, ScoredPlan
from tureen_serve.api.reward_query import RewardQuery
from tureen_serve.api.reward_replies import build_candidate_scores, count_tokens, list_normalised
from tureen_serve.faults import describe_error
from tureen_serve.generation.pairwise import OrderProbabilities, PairwiseVerdict, build_order_matrix
from tureen_serve.generation.weigh import build_preference_matrix, judge_answers, weigh_rewards
from tureen_serve.inference.engine import Group


@dataclass(frozen=True)
class LabelledItem:
    """The contents of one item's label.

    Attributes:
        group: the prompt and the answers; None if the item cannot be read.
        judged: the verdict, or the error of the item.
        candidates: scores of each answer.
        weighed: the weighted reward of each answer; empty if the answers were compared in pairs.
        calibrated: whether the margin and the probabilities have the scale of a calibration.
        orders: P(chosen over rejected) with the chosen answer shown first, then with it shown second.
        order_matrix: P(row over column) with the row's answer shown first.
        truncated: whether a text was cut.
        normalised: what was not read as it was sent.
    """

    group: Group | None
    judged: PairwiseVerdict | TureenError | None
    candidates: Sequence[CandidateScore] = ()
    weighed: Sequence[float] = ()
    calibrated: bool | None = None
    orders: OrderProbabilities | None = None
    order_matrix: list[list[float]] | None = None
    truncated: bool = False
    normalised: Sequence[str] = ()


def build_label_reply(scored: ScoredPlan[PreferencesBody]) -> PreferencesReply:
    """Build the reply for candidates that were scored one by one."""
    body, query = scored.plan.body, scored.plan.query
    return PreferencesReply(
        fingerprint=dict(query.fingerprints),
        preferences=dict(query.preferences or {}),
        data=_build_labels(body, [_judge_scores(body, item, query) for item in scored.items]),
        usage=count_tokens(scored),
    )


def build_comparison_reply(compared: ComparisonPlan) -> PreferencesReply:
    """Build the reply for candidates that were compared in pairs."""
    body, query = compared.body, compared.query
    return PreferencesReply(
        fingerprint=dict(query.fingerprints),
        preferences=dict(query.preferences or {}),
        data=_build_labels(body, [_read_verdict(body, each, query) for each in compared.tournaments]),
        usage=compared.usage,
    )


def _judge_scores(body: PreferencesBody, item: ScoredItem, query: RewardQuery) -> LabelledItem:
    """Rank the answers by their weighted rewards. If one answer failed, its error replaces the verdict."""
    group = item.group if isinstance(item.group, Group) else None
    candidates = build_candidate_scores(item, query)
    failed = item.error or next((outcome.error for outcome in item.outcomes if outcome.error), None)
    if failed:
        return LabelledItem(group, failed, candidates)
    raws, weights = [outcome.raw for outcome in item.outcomes], query.weights or {}
    verdict = judge_answers(raws, weights, query.scales, body.tie_margin)
    judged = PairwiseVerdict(verdict, build_preference_matrix(raws, weights, query.scales) if body.matrix else None)
    weighed = [weigh_rewards(raw, weights, query.scales) for raw in raws]
    truncated = any(outcome.truncated for outcome in item.outcomes)
    told = list_normalised(item.outcomes)
    return LabelledItem(group, judged, candidates, weighed, query.calibrated, truncated=truncated, normalised=told)


def _read_verdict(body: PreferencesBody, ended: Tournament, query: RewardQuery) -> LabelledItem:
    order_matrix = (
        build_order_matrix(len(ended.group), ended.met) if body.matrix and ended.group and ended.judged else None
    )
    judged = ended.judged or ended.error
    told = sorted(ended.normalised)
    return LabelledItem(
        ended.group, judged, (), (), query.calibrated, ended.orders(), order_matrix, ended.truncated, told
    )


def _build_labels(
    body: PreferencesBody, items: Sequence[LabelledItem]
) -> list[Label] | list[TrlLabel] | list[RankingLabel]:
    if body.format == "trl":
        return [_build_trl(index, item) for index, item in enumerate(items)]
    if body.format == "ranking":
        return [_build_ranking(index, item) for index, item in enumerate(items)]
    return [_build_full(index, item, body.matrix) for index, item in enumerate(items)]


def _build_full(index: int, item: LabelledItem, with_matrix: bool) -> Label:
    if not isinstance(item.judged, PairwiseVerdict):
        return Label(index=index, candidates=list(item.candidates), error=_describe_failure(item))
    found = item.judged.matrix if with_matrix else None
    return Label(
        index=index,
        **vars(item.judged.verdict),
        calibrated=item.calibrated,
        matrix=found,
        order_matrix=item.order_matrix if found else None,
        orders=item.orders,
        truncated=item.truncated,
        normalised=list(item.normalised),
        candidates=list(item.candidates),
    )


def _build_ranking(index: int, item: LabelledItem) -> RankingLabel:
    if not isinstance(item.judged, PairwiseVerdict):
        return RankingLabel(index=index, error=_describe_failure(item))
    ranking = item.judged.verdict.ranking
    return RankingLabel(index=index, ranking=ranking, truncated=item.truncated, normalised=list(item.normalised))


def _build_trl(index: int, item: LabelledItem) -> TrlLabel:
    if not isinstance(item.judged, PairwiseVerdict) or item.group is None:
        return TrlLabel(index=index, error=_describe_failure(item))
    verdict = item.judged.verdict
    return TrlLabel(
        index=index,
        prompt=_copy_messages(item.group.prompt),
        chosen=_copy_messages(item.group.answers[verdict.chosen]),
        rejected=_copy_messages(item.group.answers[verdict.rejected]),
        tools=[dict(tool) for tool in item.group.beside.tools] or None,
        chat_template_kwargs=dict(item.group.beside.arguments) or None,
        chosen_score=item.weighed[verdict.chosen] if item.weighed else None,
        rejected_score=item.weighed[verdict.rejected] if item.weighed else None,
        margin=verdict.margin,
        probability=verdict.probability,
        tie=verdict.tie,
        calibrated=item.calibrated,
        truncated=item.truncated,
        normalised=list(item.normalised),
    )


def _describe_failure(item: LabelledItem) -> ErrorDetail:
    error = item.judged if isinstance(item.judged, TureenError) else Unprocessable("this item has nothing to label")
    return describe_error(error)


def _copy_messages(messages: Messages) -> list[dict[str, Any]]:
    return [dict(message) for message in messages]
