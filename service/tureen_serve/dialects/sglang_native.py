"""SGLang's native ``/classify`` (0.5), under ``/sglang``: the rewards of one finished text, or a list for several.

A text gets the BOS and EOS tokens that the reward's reading names, each once. Token ids are read as they are. The body
has no ``model``; ``lora_path`` or ``?model=`` names a reward.
"""

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, field_validator, model_validator

from tureen.errors import TureenError
from tureen.wire import MAX_TEXTS, Many
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.reading_headers import NotedRoute, document_scoring
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody
from tureen_serve.dialects.error_bodies import build_reply, document_merged_errors, write_sentence
from tureen_serve.dialects.inputs import IdLists, Ids, Texts, is_single, list_inputs
from tureen_serve.dialects.model_names import RewardSelection
from tureen_serve.faults import find_merged_status
from tureen_serve.inference.engine import FinishedText, Outcome, Priority

router = APIRouter(route_class=NotedRoute, prefix="/sglang", tags=["dialects"])


class SglangNativeError(BaseModel):
    """An error message."""

    message: str


class SglangNativeErrorBody(BaseModel):
    """The body of an error reply of SGLang's native routes."""

    error: SglangNativeError


ERRORS = document_merged_errors(SglangNativeErrorBody)
SCORED = document_scoring(ERRORS)


class SglangBody(DialectBody):
    """The fields that SGLang's bodies share. A higher ``priority`` goes first."""

    rid: str | Annotated[list[str], Many(MAX_TEXTS)] | None = None
    priority: int | None = None
    lora_path: str | Annotated[list[str | None], Many(MAX_TEXTS)] | None = None
    dimensions: Any = None

    @field_validator("lora_path")
    @classmethod
    def _one_adapter(cls, value: Any) -> Any:
        if isinstance(value, list) and len(set(value)) > 1:
            raise ValueError("names several adapters; send one request for each")
        return value

    @field_validator("dimensions")
    @classmethod
    def _refuse_dimensions(cls, value: Any) -> Any:
        if value is not None:
            raise ValueError("must be left out: the number of rewards cannot be changed")
        return value

    @property
    def adapter(self) -> str | None:
        """The reward that ``lora_path`` names."""
        return next(iter(self.lora_path), None) if isinstance(self.lora_path, list) else self.lora_path

    @property
    def urgency(self) -> Priority:
        """The priority in our words."""
        return "default" if not self.priority else "interactive" if self.priority > 0 else "batch"

    def names(self, count: int) -> list[str]:
        """Return an id for each of ``count`` texts: those of ``rid``, or new ones."""
        if isinstance(self.rid, list) and len(self.rid) == count:
            return self.rid
        if isinstance(self.rid, str):
            return [self.rid] if count == 1 else [f"{self.rid}_{index}" for index in range(count)]
        return [uuid.uuid4().hex for _ in range(count)]


class SglangClassifyBody(SglangBody):
    """The body of ``/classify``: ``text`` or ``input_ids``, each for one text or several."""

    model: str | None = None
    text: Texts | None = None
    input_ids: Ids | IdLists | None = None
    image_data: Any = None
    video_data: Any = None
    audio_data: Any = None
    input_embeds: Any = None

    @field_validator("image_data", "video_data", "audio_data", "input_embeds")
    @classmethod
    def _refuse_media(cls, value: Any) -> Any:
        if value:
            raise ValueError("must be left out: rewards read only texts and token ids")
        return value

    @model_validator(mode="after")
    def _check_input(self) -> "SglangClassifyBody":
        if (self.text is None) == (self.input_ids is None):
            raise ValueError("send either `text` or `input_ids`")
        if self.given == []:
            raise ValueError("the list of texts is empty; send at least one")
        return self

    @property
    def given(self) -> Any:
        """The texts or token ids."""
        return self.text if self.text is not None else self.input_ids

    def at(self, index: int) -> str:
        """Return the field of a text."""
        name = "text" if self.text is not None else "input_ids"
        return name if is_single(self.given) else f"{name}[{index}]"


def build_native_error(error: TureenError) -> Response:
    """Build the error reply of SGLang's native routes: one sentence."""
    body = SglangNativeErrorBody(error=SglangNativeError(message=write_sentence(error)))
    return build_reply(error, body, find_merged_status(error))


@router.post("/classify", responses=SCORED)
@router.put("/classify", responses=SCORED)
async def classify(body: SglangClassifyBody, context: ContextDep) -> JsonReply:
    """SGLang: the raw rewards of each text."""
    began = time.perf_counter()
    selection = await context.select(body.adapter or body.model)
    outcomes = await context.score_all(
        selection, [FinishedText(each) for each in list_inputs(body.given)], at=body.at, priority=body.urgency
    )
    known = build_meta_info(selection, outcomes, body, time.perf_counter() - began)
    found = [
        {"embedding": selection.values(outcome), "meta_info": meta}
        for outcome, meta in zip(outcomes, known, strict=True)
    ]
    return JsonReply(found[0] if is_single(body.given) else found)


def build_meta_info(
    selection: RewardSelection, outcomes: Sequence[Outcome], body: SglangBody, seconds: float
) -> list[dict[str, Any]]:
    """Build ``meta_info`` for each text. ``weight_version`` is the fingerprint of the rewards that scored it.

    Args:
        seconds: how long the request took.
    """
    version = ",".join(selection.query.fingerprints.values())
    shared = {"weight_version": version, "num_retractions": 0, "e2e_latency": seconds}
    finish = {"type": "length", "length": 0}
    return [
        {"id": name, "finish_reason": finish, "prompt_tokens": outcome.tokens, **shared}
        for name, outcome in zip(body.names(len(outcomes)), outcomes, strict=True)
    ]
