"""What vLLM's scoring routes answer, and how they fail (0.32)."""

import json
import time
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse

from tureen.errors import TureenError
from tureen_core.calibration import compute_sigmoid
from tureen_serve.dialects import activation
from tureen_serve.dialects.error_bodies import CodedError, CodedErrorBody, build_reply
from tureen_serve.dialects.model_names import RewardSelection
from tureen_serve.dialects.vllm_bodies import VllmBody, VllmPoolingBody
from tureen_serve.dialects.vllm_encoding import Encoding
from tureen_serve.faults import describe_error, document_errors
from tureen_serve.generation.weigh import rank_rewards
from tureen_serve.inference.engine import Outcome

TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}
BAD_REQUESTS = (415, 422)
ERRORS = document_errors(
    400, 404, 413, 415, 422, 503, 504, model=CodedErrorBody, moved=dict.fromkeys(BAD_REQUESTS, 400)
)


def fault(error: TureenError) -> Response:
    """vLLM's error object: ``code`` is the status, and whatever is wrong with a body is a 400."""
    status = 400 if error.status in BAD_REQUESTS else error.status
    told = describe_error(error)
    kind = TYPES.get(status, HTTPStatus(status).phrase)
    said = CodedError(message=told.message, type=kind, param=told.param, code=status)
    return build_reply(error, CodedErrorBody(error=said), status)


def read_row(selection: RewardSelection, outcome: Outcome, activated: bool) -> list[float]:
    """Each column's reward; activated, σ of the only one, or the softmax of several.

    Raises:
        TureenError: the text has none.
    """
    values = selection.values(outcome)
    return activation.activate_scores(values) if activated else values


def read_number(selection: RewardSelection, outcome: Outcome, activated: bool) -> float:
    """The only column's.

    Raises:
        TureenError: the text has none, or several are asked for.
    """
    value = selection.value(outcome)
    return compute_sigmoid(value) if activated else value


def build_classify_answer(selection: RewardSelection, outcomes: Sequence[Outcome], body: VllmBody) -> dict[str, Any]:
    """``/classify``'s answer; the label is the objective with the highest reward."""
    data = []
    for index, outcome in enumerate(outcomes):
        probs = read_row(selection, outcome, body.activated)
        label = selection.columns[probs.index(max(probs))]
        data.append({"index": index, "label": label, "probs": probs, "num_classes": len(probs)})
    return _listed("classify", selection, outcomes, body, data)


def build_pooling_answer(selection: RewardSelection, outcomes: Sequence[Outcome], body: VllmPoolingBody) -> Response:
    """``/pooling``'s answer, as the body wants it written."""
    rows = [read_row(selection, outcome, body.activated) for outcome in outcomes]
    encoding = Encoding(body.embed_dtype, body.endianness)
    if body.encoding_format in ("float", "base64"):
        write = encoding.text if body.encoding_format == "base64" else list
        data = [{"index": index, "object": "pooling", "data": write(each)} for index, each in enumerate(rows)]
        return JSONResponse(_listed("pooling", selection, outcomes, body, data))
    content, data = encoding.blocks(rows)
    told = _listed("pooling", selection, outcomes, body, data) | {"usage": _read(outcomes)}
    told.pop("object")
    named = {} if body.encoding_format == "bytes_only" else {"metadata": json.dumps(told)}
    return Response(content, media_type="application/octet-stream", headers=named)


def build_score_answer(selection: RewardSelection, outcomes: Sequence[Outcome], body: VllmBody) -> dict[str, Any]:
    """``/score``'s answer."""
    data = [
        {"index": index, "object": "score", "score": read_number(selection, outcome, body.activated)}
        for index, outcome in enumerate(outcomes)
    ]
    return _listed("score", selection, outcomes, body, data)


def build_rerank_answer(
    selection: RewardSelection, outcomes: Sequence[Outcome], body: VllmBody, documents: Sequence[str], top: int
) -> dict[str, Any]:
    """``/rerank``'s answer: best first, the ``top`` best, all if it is 0."""
    scores = [read_number(selection, outcome, body.activated) for outcome in outcomes]
    best = rank_rewards(scores)[: top or None]
    results = [
        {"index": each, "document": {"text": documents[each], "multi_modal": None}, "relevance_score": scores[each]}
        for each in best
    ]
    told = {"id": _id("score", body), "model": selection.name, "usage": _read(outcomes)}
    return told | {"results": results}


def _listed(
    kind: str, selection: RewardSelection, outcomes: Sequence[Outcome], body: VllmBody, data: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "id": _id(kind, body),
        "object": "list",
        "created": int(time.time()),
        "model": selection.name,
        "data": data,
        "usage": {
            **_read(outcomes),
            "completion_tokens": 0,
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        },
    }


def _id(kind: str, body: VllmBody) -> str:
    return f"{kind}-{body.request_id or uuid.uuid4().hex}"


def _read(outcomes: Sequence[Outcome]) -> dict[str, int]:
    tokens = sum(outcome.tokens for outcome in outcomes)
    return {"prompt_tokens": tokens, "total_tokens": tokens}
