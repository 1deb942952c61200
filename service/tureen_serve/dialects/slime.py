"""slime's ``remote_rm`` at ``/slime``: a request holds one sample, and the reply is only its reward.

``--rm-url http://host:8900/slime`` gets a number. ``/slime?model=helpful+harmless`` gets an object with a number for
each reward, and ``--reward-key`` picks one. A sample that is too long is an error, unless the query has
``truncate=true``.

The prompt is a list of messages or a text, as in slime's dataset. With ``--apply-chat-template``, slime sends a
rendered text. A text that holds the reward's own generation prompt counts as rendered and is read as it is. Any other
text is read as the user's turn. So if the policy's template differs from the reward's, leave ``--apply-chat-template``
out: a text in another template would be read as the user's words.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter

from tureen.errors import Unprocessable
from tureen.wire import MAX_MESSAGES, Many, Message, Text
from tureen_core.template import Renderer
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.reading_headers import NotedRoute, document_scoring
from tureen_serve.api.reward_items import read_answer, read_prompt
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody
from tureen_serve.faults import document_errors
from tureen_serve.inference.engine import FinishedText, Group

router = APIRouter(route_class=NotedRoute, tags=["dialects"])
SCORED = document_scoring(document_errors(400, 404, 413, 415, 422, 503, 504))


class SlimeSample(DialectBody):
    """slime's sample. ``label`` is for rule-based rewards and is ignored. ``model`` is our addition."""

    prompt: Text | Annotated[list[Message], Many(MAX_MESSAGES, least=1)]
    response: Text
    label: Any = None
    model: Text | None = None


@router.post("/slime", responses=SCORED)
async def slime(body: SlimeSample, context: ContextDep, truncate: bool = False) -> JsonReply:
    """The reward of one sample: a number, or an object of several rewards with `?model=helpful+harmless`."""
    selection = await context.select(body.model)
    renderers = [reward.renderer for reward in context.list_rewards(selection)]
    outcome = await context.score_one(selection, _text(body, renderers), truncate, prompt="prompt", answer="response")
    values = selection.values(outcome)
    return JsonReply(values[0] if len(values) == 1 else dict(zip(selection.columns, values, strict=True)))


def _text(body: SlimeSample, renderers: Sequence[Renderer]) -> Group | FinishedText:
    if isinstance(body.prompt, str) and _is_rendered(body.prompt, renderers):
        return FinishedText(body.prompt + body.response)
    return Group([read_answer(body.response)], read_prompt(body.prompt))


def _is_rendered(text: str, renderers: Sequence[Renderer]) -> bool:
    found = {renderer.opens_answer(text) for renderer in renderers}
    if len(found) > 1:
        message = "the text is rendered in the template of only some of these rewards; send messages"
        raise Unprocessable(message, param="prompt")
    return found == {True}
