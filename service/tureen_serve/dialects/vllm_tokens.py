"""vLLM's ``/tokenize``, ``/detokenize`` and ``/tokenizer_info``, with the tokenizer of a reward or of a policy.

With a reward's, the ids of a prompt are those that ``/classify`` reads. So are the ids of a conversation without a
generation prompt. With a policy's, the ids of a prompt are those that ``/v1/completions`` reads.
"""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import model_validator

from tureen.errors import Unprocessable
from tureen.wire import MAX_MESSAGES, Many, Text
from tureen_serve.api.json_replies import JsonReply
from tureen_serve.api.reading_headers import NotedRoute
from tureen_serve.api.reward_items import read_inputs
from tureen_serve.dialects.dialect_context import ContextDep, DialectBody
from tureen_serve.dialects.inputs import Ids
from tureen_serve.dialects.tokenizers import TokenReader, describe_tokenizer, find_token_reader
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

    def ids(self, reader: TokenReader) -> list[int]:
        """Return the token ids of the text or the conversation."""
        if self.prompt is not None:
            return reader.read_text(self.prompt, self.add_special_tokens is not False)
        turns = [turn.plain() for turn in self.messages or ()]
        return reader.read_messages(turns, self.add_generation_prompt, read_inputs(self))


class VllmDetokenizeBody(DialectBody):
    """Token ids to turn into a text."""

    model: str | None = None
    tokens: Ids


@router.post("/tokenize", responses=ERRORS)
async def tokenize(body: VllmTokenizeBody, context: ContextDep) -> JsonReply:
    """vLLM: the token ids of a text or a conversation."""
    reader = await find_token_reader(context, body.model)
    turns = [turn.plain() for turn in body.messages or ()]
    size = len(body.prompt or "") + check_conversation(turns, context.engine.limits, "messages", read_inputs(body))
    ids = await run_pieces(lambda _: body.ids(reader), large=size > LARGE_BYTES)
    reply: dict[str, Any] = {"count": len(ids), "max_model_len": reader.max_length, "tokens": ids}
    strings = reader.tokenizer.convert_ids_to_tokens(ids) if body.return_token_strs else None
    return JsonReply({**reply, "token_strs": strings})


@router.post("/detokenize", responses=ERRORS)
async def detokenize(body: VllmDetokenizeBody, context: ContextDep) -> JsonReply:
    """vLLM: the text of token ids, with special tokens."""
    tokenizer = (await find_token_reader(context, body.model)).tokenizer
    known = len(tokenizer)
    for index, each in enumerate(body.tokens):
        if not 0 <= each < known:
            message = f"{each} is not a token id; the tokenizer has the ids 0 to {known - 1}"
            raise Unprocessable(message, param=f"tokens[{index}]")
    return JsonReply(
        {"prompt": await run_pieces(lambda _: tokenizer.decode(body.tokens), large=len(body.tokens) > LARGE_BYTES)}
    )


@router.get("/tokenizer_info", responses=ERRORS)
async def tokenizer_info(context: ContextDep) -> JsonReply:
    """vLLM: what ``tokenizer_config.json`` says, for clients that use the server's tokenizer."""
    return JsonReply(describe_tokenizer((await find_token_reader(context, None)).tokenizer))
