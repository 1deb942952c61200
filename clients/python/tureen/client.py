"""The blocking client, with the methods that users call; :mod:`tureen.async_client` has the asynchronous one.

``calls.request_flows`` builds the requests and reads the replies; ``calls.senders`` sends them.
"""

from collections.abc import Iterable
from typing import Literal, Unpack, overload

import httpx2

from tureen.batches.resources import Batches, Files
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
from tureen.calls.senders import Sender
from tureen.calls.streams import Stream
from tureen.changes.resources import RewardModels
from tureen.openai_wire import ChatChunk, ChatReply, CompletionReply
from tureen.wire import FitReply, ModelList, PreferencesReply, ScoreReply


class Client(Sender):
    """Calls a Tureen server and waits for each reply. Thread-safe; connections are reused.

        with Client("http://127.0.0.1:8900") as client:
            reply = client.score([{"prompt": "Why?", "candidates": ["Because."]}])

    When no retry can help, a method raises the class of ``tureen.errors`` that the server raised, or
    ``ConnectionFailed``. Methods that score or generate take ``deadline``, the seconds that the whole call may last.

    Args:
        base_url: the server's address; ``TUREEN_BASE_URL`` or http://127.0.0.1:8900 by default.
        api_key: the key; ``TUREEN_API_KEY`` by default.
        transport: the httpx2 transport; its default one if None.
        patience: ``timeout`` in seconds of one request (600), ``retries``, ``chunks``, ``poll`` and
            ``on_retry``; see :class:`tureen.calls.request_flows.Calls`.

    Attributes:
        files: upload, read and delete the files of batches.
        batches: run the lines of a file as requests.
        reward_models: load, unload and shadow reward models while the server runs.
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
        self.reward_models = RewardModels(self._run, self._calls)

    def score(self, items: Items, **options: Unpack[ScoreOptions]) -> ScoreReply:
        """Score finished conversations, candidates of a prompt, or steps of an answer.

            reply = client.score([{"prompt": "Why?", "candidates": ["Because.", "No idea."]}])
            reply.data[0].candidates[1].reward

        Args:
            items: any number; they are split into requests by ``chunks``, and the replies are merged into one.
            options: the other fields of ``wire.ScoreRequest``, and ``deadline``.

        Raises:
            Unprocessable: an item or an option is invalid; ``param`` names it.
            Conflict: the requested fingerprint is not loaded, or the model changed between two requests.
        """
        return self._run(self._calls.score(items, options))

    def preferences(self, items: Items, **options: Unpack[PreferencesOptions]) -> PreferencesReply:
        """Label which of each prompt's candidates is preferred. Raises the errors of :meth:`score`.

            reply = client.preferences([{"prompt": "Why?", "candidates": ["Because.", "No idea."]}])
            reply.data[0].chosen, reply.data[0].probability

        ``format`` sets the type of the rows in ``data``: ``Label``, ``TrlLabel`` or ``RankingLabel``.

        Args:
            items: any number, as for :meth:`score`.
            options: the other fields of ``wire.PreferencesRequest``, and ``deadline``.
        """
        return self._run(self._calls.preferences(items, options))

    def fit_preferences(self, pairs: Choices, **options: Unpack[FitOptions]) -> FitReply:
        """Find the preference weights that explain a person's choices between two answers.

            choice = {"prompt": "Why?", "chosen": "Because days grow short.", "rejected": "No idea."}
            client.fit_preferences([choice]).weights

        Args:
            pairs: 1 to 1024, each a ``wire.ChoicePair``.
            options: the other fields of ``wire.FitRequest``, and ``deadline``.
        """
        return self._run(self._calls.fit_preferences(pairs, options))

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
        """Generate the next message with the policy souped to ``preferences``.

            client.chat("Why do leaves fall?", preferences={"helpful": 0.7, "harmless": 0.3}).text

        Args:
            messages: the conversation; a plain text is one user message.
            stream: return a stream of chunks instead of the whole reply.
            options: the other fields of ``wire.ChatRequest``, and ``deadline``.
        """
        if stream:
            return Stream(self._run(self._calls.chat_stream(messages, options)))
        return self._run(self._calls.chat(messages, options))

    @overload
    def complete(
        self, prompt: Prompt, *, stream: Literal[False] = False, **options: Unpack[CompletionOptions]
    ) -> CompletionReply: ...

    @overload
    def complete(
        self, prompt: Prompt, *, stream: Literal[True], **options: Unpack[CompletionOptions]
    ) -> Stream[CompletionReply]: ...

    def complete(
        self, prompt: Prompt, *, stream: bool = False, **options: Unpack[CompletionOptions]
    ) -> CompletionReply | Stream[CompletionReply]:
        """Continue one text or several, without a chat template.

            client.complete("Leaves fall because", max_tokens=20).text

        Args:
            prompt: a text, the token ids of one, or several of either.
            stream: return a stream of chunks instead of the whole reply.
            options: the other fields of ``wire.CompletionRequest``, and ``deadline``.
        """
        if stream:
            return Stream(self._run(self._calls.complete_stream(prompt, options)))
        return self._run(self._calls.complete(prompt, options))

    def sweep(self, messages: Messages, weights: Iterable[Weights], **options: Unpack[SweepOptions]) -> ChatReply:
        """Answer one prompt under several preferences in one batch. ``choices`` has one answer per map, in order.

        client.sweep("Why?", [{"helpful": 1.0}, {"harmless": 1.0}]).choices
        """
        return self._run(self._calls.sweep(messages, weights, options))

    def models(self) -> ModelList:
        """List the loaded reward models, policy families and presets."""
        return self._run(self._calls.models())

    def ready(self) -> bool:
        """Return whether the server is ready to score and generate. Sends one request and does not retry."""
        return self._run(self._calls.ready()) is None

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Poll every ``poll`` seconds until the server is ready.

        Raises:
            DeadlineExceeded: the server is not ready after ``timeout`` seconds; the message says why.
        """
        self._run(self._calls.wait_until_ready(timeout))
