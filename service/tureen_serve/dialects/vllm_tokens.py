"""vLLM's ``/tokenize`` and ``/detokenize``, with the tokenizer of a reward; of several rewards, that of the first.

The ids of a prompt are those that ``/classify`` reads. So are the ids of a conversation without a generation prompt.
"""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import model_validator

from tureen.errors import Unprocessable
from tureen.wire import MAX_MESSAGES, Many, Text
from tureen_core.template import Renderer
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.reading_headers import NotedRoute
from tureen_serve.api.reward_items import read_inputs
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody, DialectContext
from tureen_serve.dialects.inputs import Ids
from tureen_serve.dialects.vllm_answers import ERRORS
from tureen_serve.dialects.vllm_bodies import VllmMessage, VllmTemplateBody
from tureen_serve.inference.pieces import LARGE_BYTES, run_pieces
from tureen_serve.inference.text_limits import check_conversation

router = APIRouter(route_class=NotedRoute, tags=["dialects"])


class VllmTokenizeBody(VllmTemplateBody):
    """A finished text, or a conversation. A generation prompt follows the conversation by default."""

    model: str | None = None
    prompt: Text | None = None
    messages: Annotated[list[VllmMessage], Many(MAX_MESSAGES)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    return_token_strs: bool | None = False

    @model_validator(mode="after")
    def _check_input(self) -> "VllmTokenizeBody":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send either `prompt` or `messages`")
        return self

    def ids(self, renderer: Renderer) -> list[int]:
        """Return the token ids of the text or the conversation."""
        if self.prompt is not None:
            return renderer.tokenize_text(self.prompt, self.add_special_tokens is not False)
        turns = [turn.plain() for turn in self.messages or ()]
        tokenize = renderer.tokenize_prompt if self.add_generation_prompt else renderer.tokenize_conversation
        return tokenize(turns, read_inputs(self))


class VllmDetokenizeBody(DialectBody):
    """Token ids to turn into a text."""

    model: str | None = None
    tokens: Ids


@router.post("/tokenize", responses=ERRORS)
async def tokenize(body: VllmTokenizeBody, context: ContextDep) -> JsonReply:
    """vLLM: the token ids of a text or a conversation."""
    renderer = await _find_renderer(context, body.model)
    turns = [turn.plain() for turn in body.messages or ()]
    size = len(body.prompt or "") + check_conversation(turns, context.engine.limits, "messages", read_inputs(body))
    ids = await run_pieces(lambda _: body.ids(renderer), large=size > LARGE_BYTES)
    reply: dict[str, Any] = {"count": len(ids), "max_model_len": renderer.reading.max_length, "tokens": ids}
    strings = renderer.tokenizer.convert_ids_to_tokens(ids) if body.return_token_strs else None
    return JsonReply({**reply, "token_strs": strings})


@router.post("/detokenize", responses=ERRORS)
async def detokenize(body: VllmDetokenizeBody, context: ContextDep) -> JsonReply:
    """vLLM: the text of token ids, with special tokens."""
    tokenizer = (await _find_renderer(context, body.model)).tokenizer
    known = len(tokenizer)
    for index, each in enumerate(body.tokens):
        if not 0 <= each < known:
            message = f"{each} is not a token id; the tokenizer has the ids 0 to {known - 1}"
            raise Unprocessable(message, param=f"tokens[{index}]")
    return JsonReply(
        {"prompt": await run_pieces(lambda _: tokenizer.decode(body.tokens), large=len(body.tokens) > LARGE_BYTES)}
    )


async def _find_renderer(context: DialectContext, model: str | None) -> Renderer:
    return context.list_rewards(await context.select(model))[0].renderer
