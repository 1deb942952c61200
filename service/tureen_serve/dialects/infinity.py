"""Infinity 0.0.78 under ``/infinity``: ``/rerank``, ``/classify``, ``/models`` and ``/health``.

A query and a document are read as the user's turn and the answer to it. A text to classify is read as it is, without a
template. Scores are the sigmoid of one reward or the softmax of several, or raw with ``raw_scores``.

A text that is too long is cut without an error, as in Infinity, on the side of the reward's reading. Two rules differ:
white space around a text is kept, and ``usage`` counts tokens.
"""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import PositiveInt

from tureen.errors import NotFound, TureenError, Unauthorized, Unavailable, Unprocessable
from tureen.wire import Text
from tureen_core.calibration import compute_sigmoid
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.reading_headers import NotedRoute, document_scoring
from tureen_serve.api.server_state import ServerStateDep
from tureen_serve.dialects import error_bodies
from tureen_serve.dialects.activation import label_scores
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody
from tureen_serve.dialects.inputs import FilledTexts
from tureen_serve.dialects.model_names import RewardSelection
from tureen_serve.dialects.query_documents import pair_texts
from tureen_serve.faults import describe_error, document_errors
from tureen_serve.generation.weigh import rank_rewards
from tureen_serve.inference.engine import FinishedText, Outcome

router = APIRouter(prefix="/infinity", route_class=NotedRoute, tags=["dialects"])
ERRORS = {
    **document_errors(400, 401, 413, 415, 422, 429, 503, 504, model=error_bodies.CodedErrorBody),
    401: {"model": error_bodies.DetailBody, "description": "a key is needed."},
    422: {"model": error_bodies.DetailBody, "description": "a field's value cannot be used."},
    429: {"model": error_bodies.CodedErrorBody, "description": "the queue is full, or the key's quota is used up."},
}
SCORED = document_scoring(ERRORS)
UNNAMED = "default/not-specified"


class InfinityBody(DialectBody):
    """The fields that both routes share."""

    model: Text = UNNAMED
    raw_scores: bool = False

    @property
    def named(self) -> str | None:
        """The model, or None if the body has only the client's placeholder for it."""
        return None if self.model == UNNAMED else self.model


class InfinityRerankBody(InfinityBody):
    """One query and the documents to rank. Without ``top_n``, the reply has all of them."""

    query: Text
    documents: FilledTexts
    return_documents: bool = False
    top_n: PositiveInt | None = None


class InfinityClassifyBody(InfinityBody):
    """The body of ``/classify``: finished texts."""

    input: FilledTexts


@router.post("/rerank", responses=SCORED)
async def rerank(body: InfinityRerankBody, context: ContextDep) -> JsonReply:
    """Rank documents by their rewards as answers to the query, best first."""
    selection = await context.select(body.named)
    pairs = pair_texts([body.query], body.documents)
    outcomes = await context.score_all(selection, pairs, truncate=True, at="documents[{}]".format)
    results = _results(body, [selection.value(each) for each in outcomes])
    return JsonReply({"object": "rerank", "results": results, **_common_fields(selection, outcomes)})


@router.post("/classify", responses=SCORED)
async def classify(body: InfinityClassifyBody, context: ContextDep) -> JsonReply:
    """The score of each text by each reward. `model: helpful+harmless` names several rewards."""
    selection = await context.select(body.named)
    outcomes = await context.score_all(selection, [FinishedText(text) for text in body.input], truncate=True)
    data = [label_scores(selection.columns, selection.values(each), body.raw_scores) for each in outcomes]
    return JsonReply({"object": "classify", "data": data, **_common_fields(selection, outcomes)})


@router.get("/models", responses=ERRORS)
async def models(context: ContextDep) -> JsonReply:
    """Every reward and alias."""
    waiting = sum(lane.queued_rows for lane in context.engine.scorers)
    cards = [_card(name, context.server.since, waiting) for name in context.list_models()]
    return JsonReply({"data": cards, "object": "list"})


@router.get("/health", responses=ERRORS)
async def health(server: ServerStateDep) -> JsonReply:
    """The time in seconds since the epoch, if this server takes requests."""
    server.require_ready()
    return JsonReply({"unix": time.time()})


def build_infinity_error(error: TureenError) -> Response:
    """Build Infinity's error reply: FastAPI's for a bad field or key, else OpenAI's with the status in ``code``."""
    if isinstance(error, Unprocessable | Unauthorized):
        return error_bodies.build_detail_reply(error)
    status = _status(error)
    detail = describe_error(error)
    coded = error_bodies.CodedError(message=detail.message, type=detail.type, param=detail.param, code=status)
    return error_bodies.build_reply(error, error_bodies.CodedErrorBody(error=coded), status)


def _status(error: TureenError) -> int:
    """Infinity's status for an unknown model and for a full queue, else ours."""
    if isinstance(error, NotFound) and error.code == "unknown_reward":
        return 400
    return 429 if isinstance(error, Unavailable) and error.code == "queue_full" else error.status


def _results(body: InfinityRerankBody, values: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {
            "relevance_score": values[index] if body.raw_scores else compute_sigmoid(values[index]),
            "index": index,
            "document": body.documents[index] if body.return_documents else None,
        }
        for index in rank_rewards(values)[: body.top_n]
    ]


def _common_fields(selection: RewardSelection, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    read = sum(each.tokens for each in outcomes)
    return {
        "model": selection.name,
        "usage": {"prompt_tokens": read, "total_tokens": read},
        "id": f"infinity-{uuid.uuid4()}",
        "created": int(time.time()),
    }


def _card(name: str, since: int, waiting: int) -> dict[str, Any]:
    return {
        "id": name,
        "stats": {"queue_absolute": waiting},
        "object": "model",
        "owned_by": "infinity",
        "created": since,
        "backend": "tureen",
        "capabilities": ["classify", "rerank"],
    }
