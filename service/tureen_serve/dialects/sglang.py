"""SGLang's OpenAI-like routes (0.5), under ``/sglang``. verl calls them for a reward model that runs on SGLang.

``/v1/embeddings`` and ``/v1/score`` read finished texts. A text gets the BOS and EOS tokens that the reward's reading
names, each once. Token ids are read as they are. ``/v1/score`` joins query and item as SGLang does. ``/v1/rerank``
reads query and document as a conversation, because reward models are trained on conversations. Rewards are raw.

``/v1/classify`` is left out, because SGLang's softmax over one label gives 1.0 for every text. ``apply_softmax`` at
``/v1/score`` with one reward gives 1.0 as well, as in SGLang.
"""

import struct
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, field_validator, model_validator

from tureen.errors import TureenError
from tureen.wire import Text
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.reading_headers import NotedRoute, document_scoring
from tureen_serve.dialects.activation import apply_softmax
from tureen_serve.dialects.dialect_context import ContextDep
from tureen_serve.dialects.error_bodies import build_reply, describe_merged_error, document_merged_errors
from tureen_serve.dialects.inputs import Ids, Input, TextList, is_single, list_inputs
from tureen_serve.dialects.query_documents import NO_INSTRUCTION, pair_texts
from tureen_serve.dialects.sglang_native import SglangBody, build_meta_info
from tureen_serve.faults import find_merged_status
from tureen_serve.generation.weigh import rank_rewards
from tureen_serve.inference.engine import FinishedText, Outcome

DEFAULT_MODEL = "default"
TYPES = {400: "BadRequestError", 500: "InternalServerError"}

router = APIRouter(route_class=NotedRoute, prefix="/sglang", tags=["dialects"])


class SglangErrorBody(BaseModel):
    """The body of an error reply of SGLang's OpenAI-like routes."""

    object: Literal["error"] = "error"
    message: str
    type: str
    param: str | None
    code: int


ERRORS = document_merged_errors(SglangErrorBody)
SCORED = document_scoring(ERRORS)


class SglangNamedBody(SglangBody):
    """A body with a ``model``. It may be SGLang's ``base:adapter``; then the adapter names the reward."""

    model: str = DEFAULT_MODEL

    @property
    def reward(self) -> str | None:
        """The model that names the rewards; None if the body has none."""
        return (self.model.rpartition(":")[2] or self.model) if "model" in self.model_fields_set else None


class SglangEmbeddingsBody(SglangNamedBody):
    """The body of ``/v1/embeddings``: finished texts or token ids, of one text or several."""

    input: Input
    encoding_format: Literal["float", "base64"] = "float"

    @field_validator("input")
    @classmethod
    def _refuse_blank(cls, value: Any) -> Any:
        if not value or (isinstance(value, str) and not value.strip()):
            raise ValueError("cannot be empty or white space only")
        if isinstance(value, list) and any(isinstance(each, str) and not each.strip() for each in value):
            raise ValueError("holds a text that is empty or white space only")
        return value


class SglangScoreBody(SglangNamedBody):
    """The body of ``/v1/score``: one query that every item continues, as texts or token ids.

    ``label_token_ids`` are for language models and are ignored.
    """

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
    def _refuse_unsupported(cls, value: Any) -> Any:
        if value:
            raise ValueError("must be left out: a reward model returns only one number for a text")
        return value

    @model_validator(mode="after")
    def _check_fields(self) -> "SglangScoreBody":
        if self.temperature != 1 and not self.apply_softmax:
            raise ValueError("`temperature` needs `apply_softmax: true`")
        given = [*list_inputs(self.items), self.query]
        if len({isinstance(each, str) for each in given if each is not None}) > 1:
            raise ValueError("send `query` and `items` both as texts or both as token ids")
        return self

    def texts(self) -> Iterator[FinishedText]:
        """Return the texts as the engine reads them: the query joined with each item, each when it is asked for."""
        return (FinishedText(self._join(item)) for item in list_inputs(self.items))

    def _join(self, item: Any) -> Any:
        if self.query is None:
            return item
        return item + self.query if self.item_first else self.query + item


class SglangRerankBody(SglangBody):
    """The body of ``/v1/rerank``: a query and documents. ``lora_path`` or ``?model=`` names the reward."""

    query: Text
    documents: TextList
    instruct: Text | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = True

    @field_validator("query", "documents")
    @classmethod
    def _refuse_blank(cls, value: Any) -> Any:
        if not value or any(not each.strip() for each in ([value] if isinstance(value, str) else value)):
            raise ValueError("cannot be empty or white space only")
        return value

    @field_validator("instruct")
    @classmethod
    def _refuse_instruction(cls, value: str | None) -> str | None:
        if value:
            raise ValueError(NO_INSTRUCTION)
        return value


def build_sglang_error(error: TureenError) -> Response:
    """Build SGLang's flat error object. Every bad body is a 400."""
    status = find_merged_status(error)
    detail = describe_merged_error(error)
    body = SglangErrorBody(message=detail.message, type=TYPES.get(status, str(status)), param=detail.param, code=status)
    return build_reply(error, body, status)


@router.post("/v1/embeddings", responses=SCORED)
async def embeddings(body: SglangEmbeddingsBody, context: ContextDep) -> JsonReply:
    """SGLang: the raw rewards of each text, as its embedding."""
    selection = await context.select(body.adapter or body.reward)
    at = "input".format if is_single(body.input) else "input[{}]".format
    outcomes = await context.score_all(
        selection, [FinishedText(each) for each in list_inputs(body.input)], at=at, priority=body.urgency
    )
    write = _base64 if body.encoding_format == "base64" else list
    data = [
        {"embedding": write(selection.values(outcome)), "index": index, "object": "embedding"}
        for index, outcome in enumerate(outcomes)
    ]
    return JsonReply({"data": data, "model": selection.name, "object": "list", "usage": _usage(outcomes)})


@router.post("/v1/score", responses=SCORED)
async def score(body: SglangScoreBody, context: ContextDep) -> JsonReply:
    """SGLang: the raw rewards of the query joined with each item."""
    selection = await context.select(body.adapter or body.reward)
    outcomes = await context.score_all(selection, body.texts(), at="items[{}]".format, priority=body.urgency)
    rows = [selection.values(outcome) for outcome in outcomes]
    others = {"pooled_hidden_states": None, "token_logprobs": None, "model": body.model, "usage": _usage(outcomes)}
    scores = [_probabilities(row, body.temperature) for row in rows] if body.apply_softmax else rows
    return JsonReply({"scores": scores, **others, "object": "scoring"})


@router.post("/v1/rerank", responses=SCORED)
@router.put("/v1/rerank", responses=SCORED)
async def rerank(body: SglangRerankBody, context: ContextDep) -> JsonReply:
    """SGLang: rank documents by their rewards as answers to one query, best first."""
    began = time.perf_counter()
    selection = await context.select(body.adapter)
    groups = pair_texts([body.query], body.documents)
    outcomes = await context.score_all(selection, groups, at="documents[{}]".format, priority=body.urgency)
    known = build_meta_info(selection, outcomes, body, time.perf_counter() - began)
    scores = [selection.value(outcome) for outcome in outcomes]
    results = [
        {"score": scores[each], "document": body.documents[each], "index": each, "meta_info": known[each]}
        for each in rank_rewards(scores)[: body.top_n]
    ]
    hidden = () if body.return_documents else ("document",)
    return JsonReply([{key: result[key] for key in result if key not in hidden} for result in results])


def _probabilities(row: Sequence[float], temperature: float) -> list[float]:
    """Return the softmax of the rewards divided by the temperature. The largest is subtracted first: no overflow."""
    most = max(row)
    return apply_softmax([(each - most) / temperature for each in row])


def _base64(row: Sequence[float]) -> str:
    """Encode the numbers as float32, little-endian, in base64."""
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
