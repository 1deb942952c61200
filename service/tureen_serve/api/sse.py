"""Stream text as OpenAI does: server-sent events in ``data:`` lines, and ``[DONE]`` at the end."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from tureen.wire import StreamOptions
from tureen_serve.api.json_replies import write_json
from tureen_serve.api.text_replies import TextReply, build_usage
from tureen_serve.faults import build_error_body, translate_error
from tureen_serve.generation.select import Spent
from tureen_serve.generation.texts import TextTask
from tureen_serve.runtimes.contract import TextDelta
from tureen_serve.runtimes.upstream_contract import SpokenPrompt

DONE = b"data: [DONE]\n\n"


async def stream_chunks(
    reply: TextReply,
    texts: Sequence[TextTask],
    deltas: AsyncGenerator[tuple[int, TextDelta]],
    spent: Spent,
    account: Callable[[Spent, bool], dict[str, Any]],
    options: StreamOptions,
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the chunks of all texts, in the order in which their deltas arrive.

    Args:
        spent: counts each delta.
        account: a function from the tokens spent, and whether all texts ended, to OpenAI's usage.
        options: whether to send the usage in the last chunk, and in each chunk that of its text so far. An upstream
            tells it at the end only.

    Raises:
        Exception: the error of a delta, if nothing was sent before it. A later error is the last chunk.
    """
    with_usage = options.include_usage
    always: dict[str, Any] = {"usage": None} if with_usage else {}
    continuous = with_usage and options.continuous_usage_stats
    made: Counter[int] = Counter()
    more = {**reply.additions, **always}
    offsets: dict[int, int] = {}
    ended = False
    try:
        async with aclosing(deltas):
            async for number, delta in deltas:
                spent.add(delta)
                opening = reply.opening(number, texts[number], delta) if number not in offsets else None
                echo = texts[number].echo
                offset = offsets.setdefault(number, len(echo.text) if echo else 0)
                offsets[number] += len(delta.text)
                made[number] += delta.tokens
                for choice in (opening, *reply.pieces(number, delta, offset)):
                    if choice is not None:
                        if continuous:
                            more = {**more, "usage": _count(texts[number], 0 if choice is opening else made[number])}
                        yield reply.chunk([choice], **more)
                        more = always
        ended = True
    except Exception as error:
        if not offsets:
            raise
        yield build_error_body(translate_error(error))
        return
    finally:
        used = account(spent, ended)
    if with_usage:
        yield reply.chunk([], usage=used)


async def write_events(chunks: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[bytes]:
    """Write chunks as OpenAI's events, and ``[DONE]`` after the last one that is no error.

    A chunk that cannot be written ends the stream with an error.
    """
    failed = False
    async with aclosing(chunks):
        async for chunk in chunks:
            failed = "error" in chunk
            try:
                event = _data(chunk)
            except Exception as error:
                yield _data(build_error_body(translate_error(error)))
                return
            yield event
    if not failed:
        yield DONE


async def prepend_event(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Yield ``first``, then the rest. Closing this generator closes ``rest``."""
    async with aclosing(rest):
        yield first
        async for each in rest:
            yield each


def _count(text: TextTask, made: int) -> dict[str, Any] | None:
    """Build the usage of one text so far; None where only an upstream knows it."""
    return None if isinstance(text.prompt, SpokenPrompt) else build_usage(len(text.prompt), made)


def _data(payload: dict[str, Any]) -> bytes:
    return b"data: " + write_json(payload) + b"\n\n"
