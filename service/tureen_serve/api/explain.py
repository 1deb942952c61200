"""``POST /v1/score/explain``: where in an answer its rewards come from.

The answer is scored many times, as ``/v1/score`` would: as far as the end of each segment, or without each segment. So
it is the same for every reward model and runtime, and each number can be asked for again.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from fastapi import APIRouter

from tureen.errors import TureenError
from tureen.wire import ExplainMethod, ExplainReply, ExplainRequest, Score, ScoreItem, Segment, SegmentUnit, Usage
from tureen_serve.api.answer_segments import Span, split_answer
from tureen_serve.api.outcome_counts import count_read_texts
from tureen_serve.api.reward_items import ScoreBody, read_answer, read_inputs, read_prompt
from tureen_serve.api.reward_plan import score_groups
from tureen_serve.api.reward_query import RewardQuery, read_query
from tureen_serve.api.reward_replies import build_scores, list_normalised
from tureen_serve.api.server_state import EngineDep, MetricsDep
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.api.wanted_rewards import want_rewards
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import Engine, Group, Outcome, Reward
from tureen_serve.inference.pieces import run_pieces
from tureen_serve.inference.text_limits import check_text_bytes, take_inputs
from tureen_serve.telemetry import Metrics

router = APIRouter(route_class=StrictRoute, tags=["rewards"])

Scores = dict[str, Score]


class Cutting(NamedTuple):
    """How an answer is cut up: ``spans`` are its segments."""

    method: ExplainMethod
    by: SegmentUnit
    spans: Sequence[Span]

    def make_texts(self, answer: str) -> Iterator[str]:
        """Make the texts that are scored, one by one; the whole answer comes first."""
        yield answer
        if self.method == "prefixes":
            yield ""
            yield from (answer[:end] for _, end in self.spans[:-1])
        else:
            yield from (answer[:start] + answer[end:] for start, end in self.spans)


@router.post("/v1/score/explain", responses=document_errors(400, 409, 413, 415, 422, 503, 504))
async def explain_score(body: ExplainRequest, engine: EngineDep, metrics: MetricsDep) -> ExplainReply:
    """Tell where in an answer its rewards come from: its running score, or its scores without each segment."""
    check_text_bytes(body.answer, engine.limits, "answer")
    try:
        query = await _read_query(body, engine)
        cutting = await run_pieces(lambda _: _cut_answer(body, [engine.rewards[name] for name in query.scales]))
        outcomes = await _score_texts(body, engine, metrics, query, cutting.make_texts(body.answer))
    except TureenError as error:
        raise error.copy(_name_field(error.param)) from None
    return _build_reply(body, query, cutting, outcomes)


async def _read_query(body: ExplainRequest, engine: Engine) -> RewardQuery:
    """Read which rewards are asked for; those that are loaded on demand are loaded.

    Raises:
        TureenError: a reward is unknown, reads something else than whole answers, or has another fingerprint.
    """
    asked = body.model_dump(include={"rewards", "fingerprint"})
    scoring = ScoreBody(items=[ScoreItem(prompt="", candidates=[body.answer])], **asked)
    await want_rewards(engine, scoring)
    return read_query(scoring, engine.rewards)


def _cut_answer(body: ExplainRequest, rewards: Sequence[Reward]) -> Cutting:
    method = body.method or ("prefixes" if all(map(_reads_end, rewards)) else "omissions")
    by = body.by or ("tokens" if method == "prefixes" else "sentences")
    return Cutting(method, by, split_answer(body.answer, by, body.most, rewards[0].renderer.tokenizer))


def _reads_end(reward: Reward) -> bool:
    """Whether a reward is read at the end of a text by a model that reads from left to right."""
    manifest = reward.artifact.manifest
    return manifest.reading.pooling in ("eos", "last") and manifest.head.kind != "model"


async def _score_texts(
    body: ExplainRequest, engine: Engine, metrics: Metrics, query: RewardQuery, texts: Iterable[str]
) -> list[Outcome]:
    """Score texts in the place of the answer. They count as read, and not among the scores of answers.

    Raises:
        TureenError: one of them cannot be scored.
    """
    prompt, beside = read_prompt(body.prompt), read_inputs(body)
    groups = take_inputs((Group([read_answer(text)], prompt, beside=beside) for text in texts), engine.limits)
    found = await score_groups(
        engine, groups, query, metrics, truncate=body.truncate, priority=body.priority, count=_count_texts
    )
    outcomes = [outcome for (outcome,) in found]
    if failed := next((outcome.error for outcome in outcomes if outcome.error), None):
        raise failed
    return outcomes


def _count_texts(metrics: Metrics, outcomes: Sequence[Outcome], query: RewardQuery) -> None:
    count_read_texts(metrics, list(query.scales), outcomes)


def _name_field(param: str | None) -> str | None:
    """Name the field of this request where an error names one of a group."""
    return param and param.replace("candidates[0]", "answer")


def _build_reply(
    body: ExplainRequest, query: RewardQuery, cutting: Cutting, outcomes: Sequence[Outcome]
) -> ExplainReply:
    whole, *others = [build_scores(outcome.raw, query.scales) for outcome in outcomes]
    if cutting.method == "prefixes":
        running = [*others, whole]
        scores, changes = running[1:], [_subtract(after, before) for before, after in pairwise(running)]
    else:
        scores, changes = others, [_subtract(whole, each) for each in others]
    segments = [
        Segment(start=start, end=end, text=body.answer[start:end], scores=each, changes=change)
        for (start, end), each, change in zip(cutting.spans, scores, changes, strict=True)
    ]
    read = sum(outcome.tokens for outcome in outcomes)
    return ExplainReply(
        method=cutting.method,
        by=cutting.by,
        fingerprint=dict(query.fingerprints),
        scores=whole,
        empty=others[0] if cutting.method == "prefixes" else None,
        segments=segments,
        truncated=any(outcome.truncated for outcome in outcomes),
        normalised=list_normalised(outcomes),
        usage=Usage(prompt_tokens=read, total_tokens=read),
    )


def _subtract(one: Scores, other: Scores) -> dict[str, float]:
    return {name: score.scaled - other[name].scaled for name, score in one.items()}
