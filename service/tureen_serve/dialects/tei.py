"""text-embeddings-inference 1.9 under ``/tei``: ``/predict``, ``/rerank``, ``/info``, ``/health``, and its errors.

A single text is read as it is, without a template. A pair is read as the user's turn and the answer to it. So is a
query with each of its texts. Scores are the sigmoid of one reward or the softmax of several, or raw with
``raw_scores``. A text that is too long is cut unless ``truncate`` is false. A cut without a direction uses the side of
the reward's reading.
"""

import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator

from tureen.errors import (
    DeadlineExceeded,
    InvalidRequest,
    RateLimited,
    ServerFault,
    TureenError,
    Unauthorized,
    Unavailable,
)
from tureen.wire import MAX_TEXTS, Many, Text
from tureen_core.calibration import compute_sigmoid
from tureen_core.reading import Cut
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.reading_headers import NotedRoute, document_scoring
from tureen_serve.api.server_state import ServerStateDep
from tureen_serve.dialects.activation import label_scores
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody
from tureen_serve.dialects.error_bodies import build_reply, write_sentence
from tureen_serve.dialects.inputs import TextList
from tureen_serve.dialects.path_models import open_paths
from tureen_serve.dialects.query_documents import pair_texts
from tureen_serve.faults import build_error_headers, document_errors
from tureen_serve.inference.engine import FinishedText, Group, Outcome

routes = APIRouter(route_class=NotedRoute, tags=["dialects"])
EMPTY = "empty"
CUT_IT = "or leave out `truncate: false`"


class TeiErrorBody(BaseModel):
    """The body of TEI's error replies."""

    error: str
    error_type: str


ERRORS = {
    **document_errors(400, 404, 413, 415, 422, 503, 504, model=TeiErrorBody, moved={500: 424}),
    401: {"description": "a key is needed."},
    429: {"model": TeiErrorBody, "description": "the queue is full, or the key's quota is used up."},
}
SCORED = document_scoring(ERRORS)


def _lower(given: Any) -> Any:
    return given.lower() if isinstance(given, str) else given


TextOrPair = Annotated[list[Text], Many(2, least=1)]
Side = Annotated[Literal["left", "right"], BeforeValidator(_lower)]


class TeiBody(DialectBody):
    """The fields that both routes share. ``model`` is our addition."""

    truncate: bool | None = None
    truncation_direction: Side | None = None
    raw_scores: bool = False
    model: Text | None = None

    @property
    def cut(self) -> Cut | None:
        """How to cut a text that is too long; None refuses it."""
        return None if self.truncate is False else Cut(side=self.truncation_direction)


class TeiPredictBody(TeiBody):
    """One text, one pair of texts, or a list of texts and pairs."""

    inputs: Text | TextOrPair | Annotated[list[TextOrPair], Many(MAX_TEXTS, least=1)]

    @property
    def single(self) -> bool:
        """Whether the reply is one prediction and not a list."""
        return isinstance(self.inputs, str) or isinstance(self.inputs[0], str)

    @property
    def batch(self) -> list[list[str]]:
        """The inputs as lists of one text or two."""
        if isinstance(self.inputs, str):
            return [[self.inputs]]
        several = [each for each in self.inputs if not isinstance(each, str)]
        return several or [[each for each in self.inputs if isinstance(each, str)]]


class TeiRerankBody(TeiBody):
    """One query and the texts to rank."""

    query: Text
    texts: TextList
    return_text: bool = False


@routes.post("", responses=SCORED)
@routes.post("/predict", responses=SCORED)
async def predict(body: TeiPredictBody, context: ContextDep) -> JsonReply:
    """Scores of texts and pairs. `?model=helpful+harmless` gives a score for each reward."""
    began = time.perf_counter()
    selection, batch = await context.select(body.model), body.batch
    place = "inputs" if body.single else "inputs[{}]"
    for index, texts in enumerate(batch):
        _check_filled(texts, place.format(index))
    outcomes = await context.score_all(
        selection, [_read(texts, body.cut) for texts in batch], at=place.format, remedy=CUT_IT
    )
    found = [label_scores(selection.columns, selection.values(each), body.raw_scores) for each in outcomes]
    headers = _headers(began, sum(len(text) for texts in batch for text in texts), outcomes)
    return JsonReply(found[0] if body.single else found, headers=headers)


@routes.post("/rerank", responses=SCORED)
async def rerank(body: TeiRerankBody, context: ContextDep) -> JsonReply:
    """Rank texts by their rewards as answers to the query, best first."""
    began = time.perf_counter()
    selection = await context.select(body.model)
    if not body.texts:
        raise InvalidRequest("`texts` cannot be empty; send at least one text", param="texts", code=EMPTY)
    for index, text in enumerate(body.texts):
        _check_filled((body.query, text), f"texts[{index}]")
    outcomes = await context.score_all(
        selection, pair_texts([body.query], body.texts, body.cut), at="texts[{}]".format, remedy=CUT_IT
    )
    headers = _headers(began, sum(len(body.query) + len(text) for text in body.texts), outcomes)
    return JsonReply(_ranks(body, [selection.value(each) for each in outcomes]), headers=headers)


@routes.get("/info", responses=ERRORS)
async def info(context: ContextDep) -> JsonReply:
    """The reward models and the limits of this server. `?model=` names rewards, as for `/predict`."""
    selection, limits = await context.select(), context.server.limits
    longest = context.find_max_length(selection)
    return JsonReply(
        {
            "model_id": selection.name,
            "model_sha": ",".join(selection.query.fingerprints.values()),
            "model_dtype": context.list_rewards(selection)[0].renderer.reading.dtype,
            "model_type": _model_type(selection.columns),
            "max_concurrent_requests": limits.in_flight,
            "max_input_length": longest,
            "max_batch_tokens": limits.batch_tokens,
            "max_batch_requests": limits.batch_rows,
            "max_client_batch_size": max(limits.queue_tokens // longest, 1),
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": version("tureen"),
            "sha": None,
            "docker_label": None,
        }
    )


@routes.get("/health", response_class=Response, responses=ERRORS)
async def health(server: ServerStateDep) -> Response:
    """200 with an empty body if this server takes requests."""
    server.require_ready()
    return Response()


router = open_paths("/tei", routes)


def build_tei_error(error: TureenError) -> Response:
    """Build TEI's error reply. A refused key has no body. Errors that TEI does not know keep our status."""
    if isinstance(error, Unauthorized):
        return Response(status_code=error.status, headers=build_error_headers(error))
    kind, status = _kind(error)
    return build_reply(error, TeiErrorBody(error=write_sentence(error), error_type=kind), status)


def _kind(error: TureenError) -> tuple[str, int]:
    match error:
        case Unavailable(code="queue_full") | RateLimited():
            return "Overloaded", 429
        case Unavailable():
            return "Unhealthy", error.status
        case DeadlineExceeded():
            return "Overloaded", error.status
        case ServerFault():
            return "Backend", 424
        case TureenError(code="context_length_exceeded"):
            return "Validation", 413
    return "Empty" if error.code == EMPTY else "Validation", error.status


def _check_filled(texts: Sequence[str], param: str) -> None:
    if not any(texts):
        raise InvalidRequest("`inputs` cannot be empty; send a text", param=param, code=EMPTY)


def _read(texts: Sequence[str], cut: Cut | None) -> Group | FinishedText:
    if len(texts) == 1:
        return FinishedText(texts[0], cut=cut)
    return pair_texts(texts[:1], texts[1:], cut)[0]


def _ranks(body: TeiRerankBody, values: Sequence[float]) -> list[dict[str, Any]]:
    """Rank the texts, best first. Of equal scores the later text comes first, as in TEI."""
    ranks = []
    for index in sorted(range(len(values)), key=lambda index: (values[index], index), reverse=True):
        text = {"text": body.texts[index]} if body.return_text else {}
        score = values[index] if body.raw_scores else compute_sigmoid(values[index])
        ranks.append({"index": index, **text, "score": score})
    return ranks


def _headers(began: float, characters: int, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return TEI's headers: times in milliseconds, and the numbers of characters and tokens."""
    milliseconds = str(round((time.perf_counter() - began) * 1000))
    return {
        "x-compute-time": milliseconds,
        "x-total-time": milliseconds,
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(sum(each.tokens for each in outcomes)),
    }


def _model_type(columns: Sequence[str]) -> dict[str, Any]:
    labels = {str(place): name for place, name in enumerate(columns)}
    places = {name: place for place, name in enumerate(columns)}
    return {"classifier" if len(columns) > 1 else "reranker": {"id2label": labels, "label2id": places}}
