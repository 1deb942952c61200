"""SGLang's OpenAI-like routes (0.5), under ``/sglang``: what verl asks where its reward model runs on SGLang.

``/v1/embeddings`` and ``/v1/score`` read finished texts: BOS and EOS as the reward's reading says, each once, ids as
they stand. ``/v1/score`` sets query and item side by side as SGLang does. ``/v1/rerank`` reads them as a conversation,
since a reward has learnt nothing else. Rewards are raw.

``/v1/classify`` is not here: SGLang's softmax turns every score of a model with one label into 1.0. What one label's
``apply_softmax`` gives at ``/v1/score`` is 1.0 too, there as here.
"""

import struct
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, field_validator, model_validator

from tureen.errors import TureenError
from tureen.wire import Text
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.dialects.activation import apply_softmax
from tureen_serve.dialects.dialect_context import ContextDep
from tureen_serve.dialects.error_bodies import build_reply
from tureen_serve.dialects.inputs import Ids, Input, is_single, list_inputs
from tureen_serve.dialects.query_documents import pair_texts
from tureen_serve.dialects.sglang_native import BAD_REQUESTS, SglangBody, build_meta_info, document_sglang_errors
from tureen_serve.faults import describe_error
from tureen_serve.generation.weigh import rank_rewards
from tureen_serve.inference.engine import FinishedText, Outcome

DEFAULT_MODEL = "default"
TYPES = {400: "BadRequestError", 500: "InternalServerError"}

router = APIRouter(route_class=StrictRoute, prefix="/sglang", tags=["dialects"])


class SglangErrorBody(BaseModel):
    """The error of SGLang's routes that are like OpenAI's."""

    object: Literal["error"] = "error"
    message: str
    type: str
    param: str | None
    code: int


ERRORS = document_sglang_errors(SglangErrorBody)


class SglangNamedBody(SglangBody):
    """``model`` may be SGLang's ``base:adapter``; then the adapter is the reward."""

    model: str = DEFAULT_MODEL

    @property
    def reward(self) -> str:
        """What is asked for."""
        return self.model.rpartition(":")[2] or self.model


class SglangEmbeddingsBody(SglangNamedBody):
    """Finished texts or ids, one or several."""

    input: Input
    encoding_format: Literal["float", "base64"] = "float"

    @field_validator("input")
    @classmethod
    def _something(cls, value: Any) -> Any:
        if not value or (isinstance(value, str) and not value.strip()):
            raise ValueError("cannot be empty or white space only")
        if isinstance(value, list) and any(isinstance(each, str) and not each.strip() for each in value):
            raise ValueError("holds a text that is empty or white space only")
        return value


class SglangScoreBody(SglangNamedBody):
    """One query that every item continues, texts or ids; ``label_token_ids`` are a language model's and not read."""

    query: Text | Ids | None = None
    items: Input
    apply_softmax: bool = False
    temperature: Annotated[float, Field(gt=0)] = 1.0
    item_first: bool = False
    score_extraction_token: str | None = None
    return_pooled_hidden_states: bool = False
    return_token_logprobs: bool = False

    @field_validator("score_extraction_token", "return_pooled_hidden_states", "return_token_logprobs")
    @classmethod
    def _not_here(cls, value: Any) -> Any:
        if value:
            raise ValueError("is not served here: a reward is one number for a text")
        return value

    @model_validator(mode="after")
    def _alike(self) -> "SglangScoreBody":
        if self.temperature != 1 and not self.apply_softmax:
            raise ValueError("`temperature` needs `apply_softmax`")
        given = [*list_inputs(self.items), self.query]
        if len({isinstance(each, str) for each in given if each is not None}) > 1:
            raise ValueError("send `query` and `items` both as texts or both as token ids")
        return self

    def texts(self) -> list[FinishedText]:
        """What the engine reads."""
        return [FinishedText(self._joined(item)) for item in list_inputs(self.items)]

    def _joined(self, item: Any) -> Any:
        if self.query is None:
            return item
        return item + self.query if self.item_first else self.query + item


class SglangRerankBody(SglangBody):
    """A query and documents; the reward is named by ``lora_path`` or ``?model=``."""

    query: Text
    documents: list[Text]
    instruct: Text | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = True

    @field_validator("query", "documents")
    @classmethod
    def _something(cls, value: Any) -> Any:
        if not value or any(not each.strip() for each in ([value] if isinstance(value, str) else value)):
            raise ValueError("cannot be empty or white space only")
        return value

    @field_validator("instruct")
    @classmethod
    def _in_the_query(cls, value: str | None) -> str | None:
        if value:
            raise ValueError("no template here has a place for it; write it into the query")
        return value


def fault(error: TureenError) -> Response:
    """SGLang's flat error object; whatever is wrong with a body is a 400."""
    status = 400 if error.status in BAD_REQUESTS else error.status
    told = describe_error(error)
    kind = TYPES.get(status, str(status))
    return build_reply(error, SglangErrorBody(message=told.message, type=kind, param=told.param, code=status), status)


@router.post("/v1/embeddings", responses=ERRORS)
async def embeddings(body: SglangEmbeddingsBody, context: ContextDep) -> JSONResponse:
    """SGLang: each text's raw rewards as its embedding."""
    selection = context.select(body.adapter or body.reward)
    at = "input".format if is_single(body.input) else "input[{}]".format
    outcomes = await context.score_all(
        selection, [FinishedText(each) for each in list_inputs(body.input)], at=at, priority=body.urgency
    )
    write = _base64 if body.encoding_format == "base64" else list
    data = [
        {"embedding": write(selection.values(outcome)), "index": index, "object": "embedding"}
        for index, outcome in enumerate(outcomes)
    ]
    return JSONResponse({"data": data, "model": selection.name, "object": "list", "usage": _usage(outcomes)})


@router.post("/v1/score", responses=ERRORS)
async def score(body: SglangScoreBody, context: ContextDep) -> JSONResponse:
    """SGLang: the rewards of a query with each of its items."""
    selection = context.select(body.adapter or body.reward)
    outcomes = await context.score_all(selection, body.texts(), at="items[{}]".format, priority=body.urgency)
    rows = [selection.values(outcome) for outcome in outcomes]
    told = {"pooled_hidden_states": None, "token_logprobs": None, "model": body.model, "usage": _usage(outcomes)}
    scores = [_probabilities(row, body.temperature) for row in rows] if body.apply_softmax else rows
    return JSONResponse({"scores": scores, **told, "object": "scoring"})


@router.post("/v1/rerank", responses=ERRORS)
@router.put("/v1/rerank", responses=ERRORS)
async def rerank(body: SglangRerankBody, context: ContextDep) -> JSONResponse:
    """SGLang: documents as answers to one query, best first."""
    began = time.perf_counter()
    selection = context.select(body.adapter)
    groups = pair_texts([body.query], body.documents)
    outcomes = await context.score_all(selection, groups, at="documents[{}]".format, priority=body.urgency)
    told = build_meta_info(selection, outcomes, body, time.perf_counter() - began)
    scores = [selection.value(outcome) for outcome in outcomes]
    results = [
        {"score": scores[each], "document": body.documents[each], "index": each, "meta_info": told[each]}
        for each in rank_rewards(scores)[: body.top_n]
    ]
    hidden = () if body.return_documents else ("document",)
    return JSONResponse([{key: result[key] for key in result if key not in hidden} for result in results])


def _probabilities(row: Sequence[float], temperature: float) -> list[float]:
    """Centred before it is divided, so that no temperature is too small."""
    most = max(row)
    return apply_softmax([(each - most) / temperature for each in row])


def _base64(row: Sequence[float]) -> str:
    """Float32, little-endian."""
    return b64encode(struct.pack(f"<{len(row)}f", *row)).decode()


def _usage(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    tokens = sum(outcome.tokens for outcome in outcomes)
    return {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "reasoning_tokens": 0,
        "completion_tokens_details": None,
    }
