"""slime's ``remote_rm`` at ``/slime``: one sample in, and the whole answer is its reward.

``--rm-url http://host:8900/slime`` gets a bare number. ``/slime?model=helpful,harmless`` gets an object, from which
``--reward-key`` picks; ``&truncate=true`` cuts what is too long, which is an error otherwise.

slime sends a prompt as its dataset has it: messages, or a text. With ``--apply-chat-template`` that text is templated,
and it was by the reward's own template if it holds what that writes to open an answer: then it is finished and meets no
template again. Any other text is a user's turn. A prompt in the template of a policy that differs from the reward's
cannot be told from a user's own words: there, leave ``--apply-chat-template`` out, so that slime sends messages.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from tureen.errors import Unprocessable
from tureen.wire import Message, Text
from tureen_core.template import Renderer
from tureen_serve.api.reward_items import read_answer, read_prompt
from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import FinishedText, Group

router = APIRouter(route_class=StrictRoute, tags=["dialects"])


class SlimeSample(DialectBody):
    """``label`` is for rewards by rule and not read; ``model`` is ours."""

    prompt: Text | Annotated[list[Message], Field(min_length=1)]
    response: Text
    label: Any = None
    model: Text | None = None


@router.post("/slime", responses=document_errors(400, 404, 413, 415, 422, 503, 504))
async def slime(body: SlimeSample, context: ContextDep, truncate: bool = False) -> JSONResponse:
    """The reward of one sample: a number, or an object of several with ``?model=helpful,harmless``."""
    selection = context.select(body.model)
    renderers = [reward.renderer for reward in context.list_rewards(selection)]
    outcome = await context.score_one(selection, _text(body, renderers), truncate, prompt="prompt", answer="response")
    values = selection.values(outcome)
    return JSONResponse(values[0] if len(values) == 1 else dict(zip(selection.columns, values, strict=True)))


def _text(body: SlimeSample, renderers: Sequence[Renderer]) -> Group | FinishedText:
    if isinstance(body.prompt, str) and _templated(body.prompt, renderers):
        return FinishedText(body.prompt + body.response)
    return Group([read_answer(_unended(body.response, renderers))], read_prompt(body.prompt))


def _templated(text: str, renderers: Sequence[Renderer]) -> bool:
    found = {renderer.opens_answer(text) for renderer in renderers}
    if len(found) > 1:
        message = "these rewards differ in their templates and the text is in one of them; send messages"
        raise Unprocessable(message, param="prompt")
    return found == {True}


def _unended(response: str, renderers: Sequence[Renderer]) -> str:
    """Without the mark that ended it, which slime keeps and a template writes itself."""
    marks = {mark for each in renderers for mark in (each.tokenizer.eos_token, each.tokenizer.pad_token) if mark}
    while found := next((mark for mark in marks if response.endswith(mark)), None):
        response = response.removesuffix(found)
    return response
