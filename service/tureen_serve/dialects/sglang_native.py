"""SGLang's own ``/classify`` (0.5), under ``/sglang``: rewards of finished texts, one object or a list of them.

Texts begin with BOS and end with EOS as the reward's reading says, each once; ids are taken as they stand. The body
has no ``model``: ``lora_path`` names a reward, or ``?model=`` does.
"""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, field_validator, model_validator

from tureen.errors import TureenError
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody
from tureen_serve.dialects.error_bodies import build_reply, write_sentence
from tureen_serve.dialects.inputs import Ids, Texts, is_single, list_inputs
from tureen_serve.dialects.model_names import RewardSelection
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import FinishedText, Outcome, Priority

BAD_REQUESTS = (415, 422)
NOT_HERE = "must be left out: only texts and token ids are read"

router = APIRouter(route_class=StrictRoute, prefix="/sglang", tags=["dialects"])


class SglangNativeError(BaseModel):
    """What went wrong."""

    message: str


class SglangNativeErrorBody(BaseModel):
    """The error of SGLang's native routes."""

    error: SglangNativeError


def document_sglang_errors(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's account of a route's errors: whatever is wrong with a body is a 400."""
    return document_errors(400, 404, 413, 415, 422, 503, 504, model=model, moved=dict.fromkeys(BAD_REQUESTS, 400))


ERRORS = document_sglang_errors(SglangNativeErrorBody)


class SglangBody(DialectBody):
    """What SGLang's bodies share. Whoever has a higher ``priority`` goes first."""

    rid: str | list[str] | None = None
    priority: int | None = None
    lora_path: str | list[str | None] | None = None
    dimensions: Any = None

    @field_validator("lora_path")
    @classmethod
    def _one_adapter(cls, value: Any) -> Any:
        if isinstance(value, list) and len(set(value)) > 1:
            raise ValueError("names several adapters; send a request for each")
        return value

    @field_validator("dimensions")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if value is not None:
            raise ValueError("must be left out: a reward has the dimensions that it has")
        return value

    @property
    def adapter(self) -> str | None:
        """The reward that ``lora_path`` names."""
        return next(iter(self.lora_path), None) if isinstance(self.lora_path, list) else self.lora_path

    @property
    def urgency(self) -> Priority:
        """The band that the request waits in."""
        return "default" if not self.priority else "interactive" if self.priority > 0 else "batch"

    def names(self, count: int) -> list[str]:
        """An id for each text."""
        if isinstance(self.rid, list) and len(self.rid) == count:
            return self.rid
        if isinstance(self.rid, str):
            return [self.rid] if count == 1 else [f"{self.rid}_{index}" for index in range(count)]
        return [uuid.uuid4().hex for _ in range(count)]


class SglangClassifyBody(SglangBody):
    """``text`` or ``input_ids``, one or several."""

    model: str | None = None
    text: Texts | None = None
    input_ids: Ids | list[Ids] | None = None
    image_data: Any = None
    video_data: Any = None
    audio_data: Any = None
    input_embeds: Any = None

    @field_validator("image_data", "video_data", "audio_data", "input_embeds")
    @classmethod
    def _texts_only(cls, value: Any) -> Any:
        if value:
            raise ValueError(NOT_HERE)
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> "SglangClassifyBody":
        if (self.text is None) == (self.input_ids is None):
            raise ValueError("send either `text` or `input_ids`")
        if self.given == []:
            raise ValueError("there is nothing to score: the list is empty")
        return self

    @property
    def given(self) -> Any:
        """What is to be read."""
        return self.text if self.text is not None else self.input_ids

    def at(self, index: int) -> str:
        """The field of a text."""
        name = "text" if self.text is not None else "input_ids"
        return name if is_single(self.given) else f"{name}[{index}]"


def fault(error: TureenError) -> Response:
    """What SGLang's native routes answer where they fail: a sentence, and no more."""
    status = 400 if error.status in BAD_REQUESTS else error.status
    return build_reply(error, SglangNativeErrorBody(error=SglangNativeError(message=write_sentence(error))), status)


@router.post("/classify", responses=ERRORS)
@router.put("/classify", responses=ERRORS)
async def classify(body: SglangClassifyBody, context: ContextDep) -> JSONResponse:
    """SGLang: the raw rewards of each text."""
    began = time.perf_counter()
    selection = context.select(body.adapter or body.model)
    outcomes = await context.score_all(
        selection, [FinishedText(each) for each in list_inputs(body.given)], at=body.at, priority=body.urgency
    )
    known = build_meta_info(selection, outcomes, body, time.perf_counter() - began)
    found = [
        {"embedding": selection.values(outcome), "meta_info": meta}
        for outcome, meta in zip(outcomes, known, strict=True)
    ]
    return JSONResponse(found[0] if is_single(body.given) else found)


def build_meta_info(
    selection: RewardSelection, outcomes: Sequence[Outcome], body: SglangBody, seconds: float
) -> list[dict[str, Any]]:
    """What is told of each text. ``weight_version`` is the fingerprint of what scored it."""
    version = ",".join(selection.query.fingerprints.values())
    shared = {"weight_version": version, "num_retractions": 0, "e2e_latency": seconds}
    finish = {"type": "length", "length": 0}
    return [
        {"id": name, "finish_reason": finish, "prompt_tokens": outcome.tokens, **shared}
        for name, outcome in zip(body.names(len(outcomes)), outcomes, strict=True)
    ]
