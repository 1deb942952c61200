"""Each call as a generator: it yields requests, receives their outcomes, and returns the reply.

The blocking and the asynchronous client run the same generators and differ only in how they send. An outcome is the
response, or the error if there was no response.
"""

import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel

from tureen import http_replies, http_requests
from tureen.calls.call_options import Choices, Items, Messages, Prompt, Weights
from tureen.calls.chunks import Chunks, R, build_chunk, check_items, check_rows, merge_replies, set_row_types
from tureen.calls.stream_events import Events, G, OpenStream
from tureen.errors import ConnectionFailed, DeadlineExceeded, TureenError
from tureen.http_requests import HttpRequest
from tureen.item_positions import shift_error
from tureen.openai_wire import ChatChunk, ChatReply, CompletionReply
from tureen.retry import Deadline, Retries
from tureen.wire import (
    ChatRequest,
    CompletionRequest,
    FitReply,
    FitRequest,
    ModelList,
    PreferencesReply,
    PreferencesRequest,
    ScoreReply,
    ScoreRequest,
)

T = TypeVar("T")
Options = Mapping[str, Any]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
PROBE_TIMEOUT = 5.0
SHORTEST = 0.001

Outcome = httpx2.Response | ConnectionFailed
Flow = Generator[HttpRequest, Outcome, T]


@dataclass(frozen=True)
class Calls:
    """The calls that a client offers, with their timeouts and retries.

    Attributes:
        timeout: seconds to wait for the reply to one request.
        retries: how often a failed request is retried, and after which waits.
        chunks: the largest number of items and bytes in one request.
        poll: seconds between two checks of whether the server is ready.
        on_retry: called before each retry with the error and the seconds since the request first failed; called from
            every thread that uses the client.
        clock: a monotonic clock in seconds.
        dice: random numbers in [0, 1).
    """

    timeout: float = 600.0
    retries: Retries = Retries()
    chunks: Chunks = Chunks()
    poll: float = 0.5
    on_retry: Callable[[TureenError, float], object] | None = None
    clock: Callable[[], float] = time.monotonic
    dice: Callable[[], float] = random.random

    def score(self, items: Items, options: Options) -> Flow[ScoreReply]:
        """``POST /v1/score``, split into as many requests as ``chunks`` needs."""
        read = partial(http_replies.parse_response, ScoreReply)
        return self._in_chunks("/v1/score", ScoreRequest, read, items, options)

    def preferences(self, items: Items, options: Options) -> Flow[PreferencesReply]:
        """``POST /v1/preferences``, split into as many requests as ``chunks`` needs."""

        def read(response: httpx2.Response) -> PreferencesReply:
            return set_row_types(
                http_replies.parse_response(PreferencesReply, response), str(options.get("format", "full"))
            )

        return self._in_chunks("/v1/preferences", PreferencesRequest, read, items, options)

    def fit_preferences(self, pairs: Choices, options: Options) -> Flow[FitReply]:
        """``POST /v1/preferences/fit``, in one request."""
        until, fields = self._begin(options)
        body = http_requests.build_body(FitRequest, {"pairs": pairs, **fields})
        response = yield from self.exchange(HttpRequest("POST", "/v1/preferences/fit", body), until)
        return http_replies.parse_response(FitReply, response)

    def chat(self, messages: Messages, options: Options) -> Flow[ChatReply]:
        """``POST /v1/chat/completions``."""
        fields = {"messages": make_messages(messages), **options}
        return self._ask(CHAT, ChatRequest, fields, ChatReply)

    def chat_stream(self, messages: Messages, options: Options) -> Flow[OpenStream[ChatChunk]]:
        """Stream the reply of the same route."""
        fields = {"messages": make_messages(messages), **options}
        return self._open(CHAT, ChatRequest, fields, ChatChunk)

    def complete(self, prompt: Prompt, options: Options) -> Flow[CompletionReply]:
        """``POST /v1/completions``."""
        return self._ask(
            COMPLETIONS,
            CompletionRequest,
            {"prompt": prompt if isinstance(prompt, str) else list(prompt), **options},
            CompletionReply,
        )

    def complete_stream(self, prompt: Prompt, options: Options) -> Flow[OpenStream[CompletionReply]]:
        """Stream the reply of the same route."""
        return self._open(
            COMPLETIONS,
            CompletionRequest,
            {"prompt": prompt if isinstance(prompt, str) else list(prompt), **options},
            CompletionReply,
        )

    def sweep(self, messages: Messages, weights: Iterable[Weights], options: Options) -> Flow[ChatReply]:
        """``POST /v1/chat/completions`` with a list of preferences: one choice for each."""
        return self.chat(messages, {**options, "preferences": list(weights)})

    def models(self) -> Flow[ModelList]:
        """``GET /v1/models``."""
        response = yield from self.exchange(HttpRequest("GET", "/v1/models"), Deadline(None, self.clock))
        return http_replies.parse_response(ModelList, response)

    def ready(self, delay: float = 0.0) -> Flow[TureenError | None]:
        """``GET /health/ready``, once. Return why the server is not ready, or None if it is.

        Raises:
            TureenError: waiting cannot help, as for 404.
        """
        try:
            http_replies.require_success(
                (yield HttpRequest("GET", "/health/ready", delay=delay, timeout=min(PROBE_TIMEOUT, self.timeout)))
            )
        except TureenError as error:
            if not error.retryable:
                raise
            return error
        return None

    def wait_until_ready(self, timeout: float) -> Flow[None]:
        """Poll until the server is ready.

        Raises:
            DeadlineExceeded: the server is not ready after ``timeout`` seconds; the message says why.
        """
        until = Deadline(timeout, self.clock)
        reason = yield from self.ready()
        while reason is not None:
            if until.left() < self.poll:
                raise DeadlineExceeded(f"the server is not ready: {reason.message}") from reason
            reason = yield from self.ready(self.poll)

    def exchange(self, send: HttpRequest, until: Deadline) -> Flow[httpx2.Response]:
        """Send a request, with retries before the deadline, and return the successful response.

        Raises:
            TureenError: the error of the last try.
        """
        until.check()
        tries, wait, failed = 0, send.delay, None
        while True:
            try:
                timeout = max(min(self.timeout, until.left() - wait), SHORTEST)
                return http_replies.require_success((yield replace(send, delay=wait, timeout=timeout)))
            except TureenError as error:
                tries += 1
                failed = self.clock() if failed is None else failed
                wait = self._pause(tries, error, until, self.clock() - failed)

    def _in_chunks(
        self, path: str, kind: type[BaseModel], read: Callable[[httpx2.Response], R], items: Items, options: Options
    ) -> Flow[R]:
        until, fields = self._begin(options)
        replies = []
        for offset, chunk in self.chunks.split(check_items(items, fields)):
            try:
                body = build_chunk(kind, {**fields, "items": chunk})
                response = yield from self.exchange(HttpRequest("POST", path, body), until)
            except TureenError as error:
                raise shift_error(error, offset) from error.__cause__
            replies.append(check_rows(read(response), len(chunk)))
        return merge_replies(replies)

    def _ask(self, path: str, kind: type[BaseModel], options: Options, reply: type[G]) -> Flow[G]:
        until, fields = self._begin(options)
        response = yield from self.exchange(HttpRequest("POST", path, http_requests.build_body(kind, fields)), until)
        return http_replies.parse_response(reply, response)

    def _open(self, path: str, kind: type[BaseModel], options: Options, chunk: type[G]) -> Flow[OpenStream[G]]:
        until, fields = self._begin(options)
        body = http_requests.build_body(kind, {**fields, "stream": True})
        response = yield from self.exchange(HttpRequest("POST", path, body, stream=True), until)
        return OpenStream(response, Events(chunk, until))

    def _begin(self, options: Options) -> tuple[Deadline, dict[str, Any]]:
        fields = dict(options)
        return Deadline(fields.pop("deadline", None), self.clock), fields

    def _pause(self, tries: int, error: TureenError, until: Deadline, away: float) -> float:
        wait = self.retries.wait(tries, error, self.dice(), away)
        if wait is not None and wait < until.left():
            if self.on_retry is not None:
                self.on_retry(error, away)
            return wait
        if isinstance(error, ConnectionFailed):
            until.check(error)
        raise error


def make_messages(messages: Messages) -> object:
    """Return messages unchanged, and a plain text as one user message."""
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
