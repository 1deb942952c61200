"""The asynchronous client: the methods of :mod:`tureen.client` as coroutines."""

from collections.abc import Iterable
from typing import Literal, Unpack, overload

import httpx2

from tureen.batches.async_resources import AsyncBatches, AsyncFiles
from tureen.calls.call_options import (
    ChatOptions,
    Choices,
    CompletionOptions,
    FitOptions,
    Items,
    Messages,
    Patience,
    PreferencesOptions,
    Prompt,
    ScoreOptions,
    SweepOptions,
    Weights,
)
from tureen.calls.senders import AsyncSender
from tureen.calls.streams import AsyncStream
from tureen.changes.resources import AsyncRewardModels
from tureen.openai_wire import ChatChunk, ChatReply, CompletionReply
from tureen.wire import FitReply, ModelList, PreferencesReply, ScoreReply


class AsyncClient(AsyncSender):
    """The asynchronous form of :class:`tureen.client.Client`, for one event loop.

    async with AsyncClient("http://127.0.0.1:8900") as client:
        reply = await client.score([{"prompt": "Why?", "candidates": ["Because."]}])
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        **patience: Unpack[Patience],
    ) -> None:
        super().__init__(base_url, api_key, transport, patience)
        self.files = AsyncFiles(self._run, self._calls)
        self.batches = AsyncBatches(self._run, self._calls)
        self.reward_models = AsyncRewardModels(self._run, self._calls)

    async def score(self, items: Items, **options: Unpack[ScoreOptions]) -> ScoreReply:
        """As :meth:`Client.score`."""
        return await self._run(self._calls.score(items, options))

    async def preferences(self, items: Items, **options: Unpack[PreferencesOptions]) -> PreferencesReply:
        """As :meth:`Client.preferences`."""
        return await self._run(self._calls.preferences(items, options))

    async def fit_preferences(self, pairs: Choices, **options: Unpack[FitOptions]) -> FitReply:
        """As :meth:`Client.fit_preferences`."""
        return await self._run(self._calls.fit_preferences(pairs, options))

    @overload
    async def chat(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> ChatReply: ...

    @overload
    async def chat(
        self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> AsyncStream[ChatChunk]: ...

    async def chat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> ChatReply | AsyncStream[ChatChunk]:
        """As :meth:`Client.chat`; ``async for`` over the stream."""
        if stream:
            return AsyncStream(await self._run(self._calls.chat_stream(messages, options)))
        return await self._run(self._calls.chat(messages, options))

    @overload
    async def complete(
        self, prompt: Prompt, *, stream: Literal[False] = False, **options: Unpack[CompletionOptions]
    ) -> CompletionReply: ...

    @overload
    async def complete(
        self, prompt: Prompt, *, stream: Literal[True], **options: Unpack[CompletionOptions]
    ) -> AsyncStream[CompletionReply]: ...

    async def complete(
        self, prompt: Prompt, *, stream: bool = False, **options: Unpack[CompletionOptions]
    ) -> CompletionReply | AsyncStream[CompletionReply]:
        """As :meth:`Client.complete`; ``async for`` over the stream."""
        if stream:
            return AsyncStream(await self._run(self._calls.complete_stream(prompt, options)))
        return await self._run(self._calls.complete(prompt, options))

    async def sweep(self, messages: Messages, weights: Iterable[Weights], **options: Unpack[SweepOptions]) -> ChatReply:
        """As :meth:`Client.sweep`."""
        return await self._run(self._calls.sweep(messages, weights, options))

    async def models(self) -> ModelList:
        """As :meth:`Client.models`."""
        return await self._run(self._calls.models())

    async def ready(self) -> bool:
        """As :meth:`Client.ready`."""
        return (await self._run(self._calls.ready())) is None

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """As :meth:`Client.wait_until_ready`."""
        await self._run(self._calls.wait_until_ready(timeout))
