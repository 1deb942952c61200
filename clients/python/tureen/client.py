"""The blocking and the asynchronous client: the methods that a caller sees.

What each sends and makes of the answer stands in ``flows``, and how it is sent in ``sending``.
"""

from collections.abc import Iterable
from typing import Literal, Unpack, overload

import httpx2

from tureen.batches.resources import AsyncBatches, AsyncFiles, Batches, Files
from tureen.calls.call_options import (
    ChatOptions,
    CompletionOptions,
    Items,
    Messages,
    Patience,
    PreferencesOptions,
    ScoreOptions,
    SweepOptions,
    Weights,
)
from tureen.calls.senders import AsyncSender, Sender
from tureen.calls.streams import AsyncStream, Stream
from tureen.openai_wire import ChatChunk, ChatReply, CompletionReply
from tureen.wire import ModelList, PreferencesReply, ScoreReply


class Client(Sender):
    """Calls a Tureen server and waits for the answer. Threads may share one; its connections are kept and reused.

    Every method raises the class of ``tureen.errors`` that the server raised, or ``ConnectionFailed``, once another
    try makes no sense. Every method that generates or scores takes ``deadline``, the seconds that the whole call may
    last: no wait is begun that would outlast it.

    Args:
        base_url: the server's address; ``TUREEN_BASE_URL`` or http://127.0.0.1:8900 by default.
        api_key: the key; ``TUREEN_API_KEY`` by default.
        transport: what carries the requests; httpx2's own by default.
        patience: ``timeout`` in seconds of one request (600), ``retries``, ``chunks``, ``poll`` and
            ``on_retry``; see :class:`tureen.calls.request_flows.Calls`.

    Attributes:
        files: upload, read and delete files, as batches need and make them.
        batches: run every line of a file.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        transport: httpx2.BaseTransport | None = None,
        **patience: Unpack[Patience],
    ) -> None:
        super().__init__(base_url, api_key, transport, patience)
        self.files = Files(self._run, self._calls)
        self.batches = Batches(self._run, self._calls)

    def score(self, items: Items, **options: Unpack[ScoreOptions]) -> ScoreReply:
        """Rewards of finished conversations, of a prompt's candidates, or of its steps.

        Args:
            items: any number; they go out in requests of the size of ``chunks``, and the reply is one.
            options: the other fields of ``wire.ScoreRequest``, and ``deadline``.

        Raises:
            Unprocessable: an item or an option cannot be used; ``param`` names it.
            Conflict: the fingerprint asked for is not loaded, or the model changed between two requests.
        """
        return self._run(self._calls.score(items, options))

    def preferences(self, items: Items, **options: Unpack[PreferencesOptions]) -> PreferencesReply:
        """Which of each prompt's candidates is preferred; errors are those of :meth:`score`.

        The rows of ``data`` are ``Label``, ``TrlLabel`` or ``RankingLabel``, by ``format``.

        Args:
            items: any number, as for :meth:`score`.
            options: the other fields of ``wire.PreferencesRequest``, and ``deadline``.
        """
        return self._run(self._calls.preferences(items, options))

    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> ChatReply: ...

    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> Stream[ChatChunk]: ...

    def chat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> ChatReply | Stream[ChatChunk]:
        """The next message, from the policy that ``preferences`` make.

        Args:
            messages: the conversation; a text is what the user says.
            stream: return the chunks as they come instead of the whole reply.
            options: the other fields of ``wire.ChatRequest``, and ``deadline``.
        """
        if stream:
            return Stream(self._run(self._calls.chat_stream(messages, options)))
        return self._run(self._calls.chat(messages, options))

    @overload
    def complete(
        self, prompt: str | Iterable[str], *, stream: Literal[False] = False, **options: Unpack[CompletionOptions]
    ) -> CompletionReply: ...

    @overload
    def complete(
        self, prompt: str | Iterable[str], *, stream: Literal[True], **options: Unpack[CompletionOptions]
    ) -> Stream[CompletionReply]: ...

    def complete(
        self, prompt: str | Iterable[str], *, stream: bool = False, **options: Unpack[CompletionOptions]
    ) -> CompletionReply | Stream[CompletionReply]:
        """How a text, or each of several, goes on, without a chat template.

        Args:
            prompt: the text or texts.
            stream: return the chunks as they come instead of the whole reply.
            options: the other fields of ``wire.CompletionRequest``, and ``deadline``.
        """
        if stream:
            return Stream(self._run(self._calls.complete_stream(prompt, options)))
        return self._run(self._calls.complete(prompt, options))

    def sweep(self, messages: Messages, weights: Iterable[Weights], **options: Unpack[SweepOptions]) -> ChatReply:
        """One prompt under many preferences in one batch: a choice for each of ``weights``, in their order."""
        return self._run(self._calls.sweep(messages, weights, options))

    def models(self) -> ModelList:
        """What is loaded: reward models, policy families and presets."""
        return self._run(self._calls.models())

    def ready(self) -> bool:
        """Whether the server answers, and would score and generate now. Asked once."""
        return self._run(self._calls.ready()) is None

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Look every ``poll`` seconds until :meth:`ready`.

        Raises:
            DeadlineExceeded: it is not after ``timeout`` seconds; the message says why.
        """
        self._run(self._calls.wait_until_ready(timeout))


class AsyncClient(AsyncSender):
    """As :class:`Client`, for one event loop."""

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

    async def score(self, items: Items, **options: Unpack[ScoreOptions]) -> ScoreReply:
        """As :meth:`Client.score`."""
        return await self._run(self._calls.score(items, options))

    async def preferences(self, items: Items, **options: Unpack[PreferencesOptions]) -> PreferencesReply:
        """As :meth:`Client.preferences`."""
        return await self._run(self._calls.preferences(items, options))

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
        self, prompt: str | Iterable[str], *, stream: Literal[False] = False, **options: Unpack[CompletionOptions]
    ) -> CompletionReply: ...

    @overload
    async def complete(
        self, prompt: str | Iterable[str], *, stream: Literal[True], **options: Unpack[CompletionOptions]
    ) -> AsyncStream[CompletionReply]: ...

    async def complete(
        self, prompt: str | Iterable[str], *, stream: bool = False, **options: Unpack[CompletionOptions]
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
