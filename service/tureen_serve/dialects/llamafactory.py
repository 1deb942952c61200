"""LlamaFactory's ``/v1/score/evaluation`` under ``/llamafactory``: the rewards of rendered texts.

A text that is longer than the model reads, or than ``max_length``, is cut without an error, as in LlamaFactory. Two
rules differ: a text is cut on the side of the reward's reading, and it gets BOS and EOS once, sent or not.
"""

import uuid

from fastapi import APIRouter
from pydantic import NonNegativeInt

from tureen.errors import InvalidRequest
from tureen.wire import Text
from tureen_core.reading import Cut
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.reading_headers import NotedRoute, document_scoring
from tureen_serve.dialects import error_bodies
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody
from tureen_serve.dialects.inputs import TextList
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import FinishedText

router = APIRouter(prefix="/llamafactory", route_class=NotedRoute, tags=["dialects"])
ERRORS = document_errors(400, 404, 413, 415, 422, 503, 504, model=error_bodies.DetailBody)
SCORED = document_scoring(ERRORS)


class LlamaFactoryScoreBody(DialectBody):
    """Rendered texts in ``messages``. ``max_length`` is in tokens; 0 means the length that the model reads."""

    model: Text
    messages: TextList
    max_length: NonNegativeInt | None = None


@router.post("/v1/score/evaluation", responses=SCORED)
async def score_evaluation(body: LlamaFactoryScoreBody, context: ContextDep) -> JsonReply:
    """The reward of each text."""
    if not body.messages:
        raise InvalidRequest("send at least one text", param="messages")
    selection = await context.select(body.model)
    cut = Cut(length=body.max_length or None)
    outcomes = await context.score_all(
        selection, [FinishedText(text, cut=cut) for text in body.messages], at="messages[{}]".format
    )
    return JsonReply(
        {
            "id": f"scoreval-{uuid.uuid4().hex}",
            "object": "score.evaluation",
            "model": body.model,
            "scores": [selection.value(each) for each in outcomes],
        }
    )
