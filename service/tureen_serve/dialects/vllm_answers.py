"""The replies of vLLM's scoring routes and their errors (0.32)."""

import json
import time
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Response

from tureen.errors import TureenError
from tureen_core.calibration import compute_sigmoid
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.dialects import activation
from tureen_serve.dialects.error_bodies import (
    CodedError,
    CodedErrorBody,
    build_reply,
    describe_merged_error,
    document_merged_errors,
)
from tureen_serve.dialects.model_names import RewardSelection
from tureen_serve.dialects.vllm_bodies import VllmBody, VllmPoolingBody
from tureen_serve.dialects.vllm_encoding import Encoding
from tureen_serve.faults import find_merged_status
from tureen_serve.generation.weigh import rank_rewards
from tureen_serve.inference.engine import Outcome

TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}
ERRORS = document_merged_errors(CodedErrorBody)


def build_vllm_error(error: TureenError) -> Response:
    """Build vLLM's error reply: ``code`` is the status, and every bad body is a 400."""
    status = find_merged_status(error)
    detail = describe_merged_error(error)
    kind = TYPES.get(status, HTTPStatus(status).phrase)
    body = CodedErrorBody(error=CodedError(message=detail.message, type=kind, param=detail.param, code=status))
    return build_reply(error, body, status)


def read_row(selection: RewardSelection, outcome: Outcome, activated: bool) -> list[float]:
    """Return the reward of each column. With ``activated``, σ of a single reward or the softmax of several.

    Raises:
        TureenError: the text has no reward.
    """
    values = selection.values(outcome)
    return activation.activate_scores(values) if activated else values


def read_number(selection: RewardSelection, outcome: Outcome, activated: bool) -> float:
    """Return the single reward, as :func:`read_row` does.

    Raises:
        TureenError: the text has no reward, or several rewards are selected.
    """
    value = selection.value(outcome)
    return compute_sigmoid(value) if activated else value


def build_classify_answer(selection: RewardSelection, outcomes: Sequence[Outcome], body: VllmBody) -> dict[str, Any]:
    """Build the reply of ``/classify``. The label is the objective with the highest reward."""
    data = []
    for index, outcome in enumerate(outcomes):
        probs = read_row(selection, outcome, body.activated)
        label = selection.columns[probs.index(max(probs))]
        data.append({"index": index, "label": label, "probs": probs, "num_classes": len(probs)})
    return _listed("classify", selection, outcomes, body, data)


def build_pooling_answer(selection: RewardSelection, outcomes: Sequence[Outcome], body: VllmPoolingBody) -> Response:
    """Build the reply of ``/pooling`` in the encoding that the body asks for."""
    rows = [read_row(selection, outcome, body.activated) for outcome in outcomes]
    encoding = Encoding(body.embed_dtype, body.endianness)
    if body.encoding_format in ("float", "base64"):
        write = encoding.text if body.encoding_format == "base64" else list
        data = [{"index": index, "object": "pooling", "data": write(each)} for index, each in enumerate(rows)]
        return JsonReply(_listed("pooling", selection, outcomes, body, data))
    content, data = encoding.blocks(rows)
    metadata = _listed("pooling", selection, outcomes, body, data) | {"usage": _read(outcomes)}
    metadata.pop("object")
    headers = {} if body.encoding_format == "bytes_only" else {"metadata": json.dumps(metadata)}
    return Response(content, media_type="application/octet-stream", headers=headers)


def build_score_answer(selection: RewardSelection, outcomes: Sequence[Outcome], body: VllmBody) -> dict[str, Any]:
    """Build the reply of ``/score``."""
    data = [
        {"index": index, "object": "score", "score": read_number(selection, outcome, body.activated)}
        for index, outcome in enumerate(outcomes)
    ]
    return _listed("score", selection, outcomes, body, data)


def build_rerank_answer(
    selection: RewardSelection, outcomes: Sequence[Outcome], body: VllmBody, documents: Sequence[str], top: int
) -> dict[str, Any]:
    """Build the reply of ``/rerank``: the ``top`` best documents, best first. 0 returns all of them."""
    scores = [read_number(selection, outcome, body.activated) for outcome in outcomes]
    best = rank_rewards(scores)[: top or None]
    results = [
        {"index": each, "document": {"text": documents[each], "multi_modal": None}, "relevance_score": scores[each]}
        for each in best
    ]
    return {"id": _id("score", body), "model": selection.name, "usage": _read(outcomes), "results": results}


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
