"""A stream of text as server-sent events, as OpenAI sends them: ``data:`` lines and a last ``[DONE]``."""

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from tureen_serve.api.text_replies import TextReply
from tureen_serve.faults import build_error_body, translate_error
from tureen_serve.generation.texts import TextTask
from tureen_serve.runtimes.contract import Delta

DONE = b"data: [DONE]\n\n"


async def stream_events(
    reply: TextReply,
    texts: Sequence[TextTask],
    deltas: AsyncGenerator[tuple[int, Delta]],
    account: Callable[[int, bool], dict[str, Any]],
    with_usage: bool,
) -> AsyncGenerator[bytes]:
    """Events of all texts, interleaved as their deltas come. An error after the first event becomes the last one.

    Args:
        account: from the number of tokens made, and whether all texts came to their end, to OpenAI's usage.
        with_usage: send the usage before the end.

    Raises:
        Exception: as the deltas raised it, if nothing was sent yet.
    """
    always: dict[str, Any] = {"usage": None} if with_usage else {}
    more = {**reply.additions, **always}
    offsets: dict[int, int] = {}
    spent = 0
    ended = False
    try:
        async with aclosing(deltas):
            async for number, delta in deltas:
                spent += delta.tokens
                opening = reply.opening(number, texts[number].variation.weights) if number not in offsets else None
                offset = offsets.setdefault(number, 0)
                offsets[number] += len(delta.text)
                for choice in (opening, *_pieces(reply, number, delta, offset)):
                    if choice is not None:
                        yield _data(reply.chunk([choice], **more))
                        more = always
        ended = True
    except Exception as error:
        if not offsets:
            raise
        yield _data(build_error_body(translate_error(error)))
        return
    finally:
        used = account(spent, ended)
    if with_usage:
        yield _data(reply.chunk([], usage=used))
    yield DONE


def _pieces(reply: TextReply, number: int, delta: Delta, offset: int) -> list[dict[str, Any]]:
    """The delta's content, and apart from it why the text ended, as OpenAI does."""
    pieces = []
    if delta.text or delta.logprobs:
        pieces.append(reply.piece(number, Delta(delta.text, delta.tokens, delta.logprobs), offset))
    if delta.finish:
        pieces.append(reply.piece(number, Delta("", finish=delta.finish), offset + len(delta.text)))
    return pieces


async def prepend_event(head: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """``head``, then the rest."""
    async with aclosing(rest):
        yield head
        async for each in rest:
            yield each


def _data(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload, ensure_ascii=False, allow_nan=False).encode() + b"\n\n"
