"""vLLM's scoring routes (0.32), at the root and under ``/vllm``. verl's reward router and many scripts call them.

Errors look like vLLM's, and one bad text fails its request. Some rules differ from vLLM's, because a reward model reads
the texts:

* A finished text gets the BOS and EOS tokens that the reward's reading names, each once. White space after EOS is
  dropped. So a text that the caller rendered scores the same as its conversation. With ``add_special_tokens: false``,
  and for token ids, the input is read as it is.
* A conversation is rendered by the reward's own template. Another template, a generation prompt, a conversation
  without an answer, and images are refused.
* ``/score`` and ``/rerank`` read the query as the user's turn and the document as the assistant's answer. vLLM joins
  the two texts without a template, which makes a reward model rank them differently.
* ``model`` may name one loaded reward, several rewards, or a weighted mix. For several, ``probs`` has one column for
  each, and ``label`` is the name of the highest.
* A cut without a side uses the side that the reward was trained with.
"""

from typing import Any

from fastapi import APIRouter, Response

from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.reading_headers import NotedRoute, document_scoring
from tureen_serve.api.server_state import ServerStateDep
from tureen_serve.dialects import vllm_tokens
from tureen_serve.dialects.dialect_context import ContextDep, DialectContext
from tureen_serve.dialects.model_names import RewardSelection
from tureen_serve.dialects.query_documents import pair_texts, shorten_text
from tureen_serve.dialects.vllm_answers import (
    ERRORS,
    build_classify_answer,
    build_pooling_answer,
    build_rerank_answer,
    build_score_answer,
    build_vllm_error,
)
from tureen_serve.dialects.vllm_bodies import (
    CUT_IT,
    VllmPairsBody,
    VllmPoolingBody,
    VllmRerankBody,
    VllmScoreBody,
    VllmTextsBody,
)
from tureen_serve.inference.engine import Outcome
from tureen_serve.inference.pieces import LARGE_BYTES, GoOn, run_pieces

__all__ = ["build_vllm_error", "router"]

Pairs = VllmScoreBody | VllmRerankBody
SCORED = document_scoring(ERRORS)

plain = APIRouter(route_class=NotedRoute, tags=["dialects"])
ranked = APIRouter(route_class=NotedRoute, tags=["dialects"])
versioned = APIRouter(route_class=NotedRoute, tags=["dialects"])
named = APIRouter(route_class=NotedRoute, tags=["dialects"])


@plain.post("/classify", responses=SCORED)
async def classify(body: VllmTextsBody, context: ContextDep) -> JsonReply:
    """vLLM: the reward of each text or of one conversation, or its probability."""
    selection = await context.select(body.model)
    return JsonReply(build_classify_answer(selection, await _texts(body, context, selection), body))


@plain.post("/pooling", responses=SCORED)
async def pooling(body: VllmPoolingBody, context: ContextDep) -> Response:
    """vLLM: the rewards of `/classify` as numbers, base64 or bytes."""
    selection = await context.select(body.model)
    return build_pooling_answer(selection, await _texts(body, context, selection), body)


@plain.post("/score", responses=SCORED)
@versioned.post("/v1/score", responses=SCORED)
async def score(body: VllmScoreBody, context: ContextDep) -> JsonReply:
    """vLLM: the reward of each document as an answer to its query."""
    selection = await context.select(body.model)
    outcomes, _ = await _documents(body, context, selection)
    return JsonReply(build_score_answer(selection, outcomes, body))


@plain.post("/rerank", responses=SCORED)
@ranked.post("/v1/rerank", responses=SCORED)
@ranked.post("/v2/rerank", responses=SCORED)
async def rerank(body: VllmRerankBody, context: ContextDep) -> JsonReply:
    """vLLM: rank documents by their rewards as answers to one query, best first."""
    selection = await context.select(body.model)
    outcomes, documents = await _documents(body, context, selection)
    return JsonReply(build_rerank_answer(selection, outcomes, body, documents, body.top_n))


@named.get("/health", response_class=Response, responses=ERRORS)
async def health(server: ServerStateDep) -> Response:
    """vLLM: 200 with an empty body if this server takes requests."""
    server.require_ready()
    return Response()


@named.get("/v1/models", responses=ERRORS)
async def models(context: ContextDep) -> dict[str, Any]:
    """vLLM: the names that `model` can have: rewards and aliases."""
    shared = {
        "object": "model",
        "created": context.server.since,
        "owned_by": "tureen",
        "parent": None,
        "permission": [],
    }
    found = context.list_models()
    cards = [{"id": name, "root": name, "max_model_len": length, **shared} for name, length in found.items()]
    return {"object": "list", "data": cards}


router = APIRouter()
for each in (plain, ranked, vllm_tokens.router):
    router.include_router(each)
for each in (plain, ranked, vllm_tokens.router, versioned, named):
    router.include_router(each, prefix="/vllm")


async def _texts(body: VllmTextsBody, context: DialectContext, selection: RewardSelection) -> list[Outcome]:
    return await context.score_all(
        selection, body.groups(context.find_max_length(selection)), at=body.at, priority=body.urgency, remedy=CUT_IT
    )


async def _documents(
    body: Pairs, context: DialectContext, selection: RewardSelection
) -> tuple[list[Outcome], list[str]]:
    """Score the documents. Returns the outcomes, and the documents as they were sent."""
    longest = context.find_max_length(selection)
    body.check_bounds(longest)
    queries, documents = body.sides()
    groups = pair_texts(*await _shorten(body, context, selection, queries, documents), body.cut(longest))
    return await context.score_all(selection, groups, at=body.at, priority=body.urgency, remedy=CUT_IT), documents


async def _shorten(
    body: VllmPairsBody, context: DialectContext, selection: RewardSelection, queries: list[str], documents: list[str]
) -> tuple[list[str], list[str]]:
    """Cut queries and documents to the body's bounds, in tokens of the first reward's tokenizer."""
    bounds = body.max_tokens_per_query, body.max_tokens_per_doc
    if not any(bounds):
        return queries, documents
    tokenizer = context.list_rewards(selection)[0].renderer.tokenizer

    def shorten(texts: list[str], most: int, go_on: GoOn) -> list[str]:
        found = []
        for text in texts:
            go_on()
            found.append(shorten_text(text, tokenizer, most) if most else text)
        return found

    large = sum(map(len, (*queries, *documents))) > LARGE_BYTES
    return await run_pieces(
        lambda go_on: (shorten(queries, bounds[0], go_on), shorten(documents, bounds[1], go_on)), large
    )
