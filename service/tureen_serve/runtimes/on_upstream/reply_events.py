"""Read the events of an upstream's stream as a text, and refuse what is no whole text. No network.

An upstream that ignores what it was sent is noticed where it can be: a text that holds a stop string, more tokens than
were allowed, no log-probabilities where they were asked for, no count of tokens.
"""

from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, ValidationError

from tureen.errors import BadGateway, Unprocessable
from tureen_serve.runtimes.contract import Finish, Origin, TextDelta, TokenLogprob
from tureen_serve.runtimes.sampling_fields import Sampling
from tureen_serve.runtimes.upstream_contract import UpstreamError

DONE = "[DONE]"
EXCERPT = 200  # characters of what an upstream says
NO_ID = -1


class _Alternative(BaseModel):
    token: str
    logprob: FiniteFloat


class _TokenLogprobs(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(BaseModel):
    """Those of chats (``content``) or those of completions."""

    content: list[_TokenLogprobs] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[FiniteFloat] | None = None
    top_logprobs: list[dict[str, FiniteFloat]] | None = None

    def list_tokens(self, most: int) -> list[TokenLogprob]:
        """List the tokens, each with at most so many alternatives."""
        if self.content is not None:
            return [
                TokenLogprob(
                    each.token,
                    NO_ID,
                    each.logprob,
                    tuple((one.token, NO_ID, one.logprob) for one in (each.top_logprobs or [])[:most]),
                )
                for each in self.content
            ]
        tokens, values = self.tokens or [], self.token_logprobs or []
        tops = self.top_logprobs or [{}] * len(tokens)
        found = []
        for token, value, top in zip(tokens, values, tops, strict=True):
            best = sorted(top.items(), key=lambda pair: -pair[1])[:most]
            found.append(TokenLogprob(token, NO_ID, value, tuple((name, NO_ID, number) for name, number in best)))
        return found


class _Said(BaseModel):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(BaseModel):
    index: int = 0
    delta: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _ReadTokens(BaseModel):
    cached_tokens: NonNegativeInt | None = None


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    prompt_tokens_details: _ReadTokens | None = None


class _Chunk(BaseModel):
    choices: Annotated[list[_Choice], Field(max_length=1)]
    usage: _Usage | None = None
    model: str | None = None
    system_fingerprint: str | None = None


class ReplyEvents:
    """Reads one stream.

    Args:
        name: of the family, for errors.
        model: the model's name as it was asked for.
        sampling: what was asked for.

    Attributes:
        begun: whether a piece of the text has come.
    """

    def __init__(self, name: str, model: str, sampling: Sampling) -> None:
        self.begun = False
        self._name, self._model, self._sampling = name, model, sampling
        self._text: list[str] = []
        self._counted = 0
        self._scored = False
        self._thought = False
        self._finish: Finish | None = None
        self._usage: _Usage | None = None
        self._told = False

    @property
    def whole(self) -> bool:
        """Whether the text has ended and its tokens are counted."""
        return self._finish is not None and self._usage is not None

    def read(self, data: str) -> Iterator[TextDelta]:
        """Yield the delta of one event, if it has any. The end of the text comes from :meth:`finish`.

        Raises:
            UpstreamError: the event is no chunk of a reply, or holds what was not asked for.
        """
        if data == DONE:
            return
        try:
            chunk = _Chunk.model_validate_json(data)
        except ValidationError as error:
            self._refuse(f"an event that is no chunk of a reply ({error.errors()[0]['msg']})")
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices:
            yield from self._read_choice(chunk, choice)

    def finish(self) -> TextDelta:
        """Check the whole text, and return its last delta, with the tokens that the upstream counted.

        Raises:
            UpstreamError: the text is not whole, or is not what was asked for.
        """
        if self._finish is None:
            self._refuse("a reply that ends before its text does")
        if self._usage is None:
            self._refuse("no `usage`; it must act on `stream_options.include_usage`")
        text, made, most = "".join(self._text), self._usage.completion_tokens, self._sampling.max_tokens
        if not text and self._thought:
            self._refuse("no text but its thoughts; allow more tokens")
        if not made:
            self._refuse("a `usage` that counts no token of its text" if text else "an empty text")
        if made > most:
            self._refuse(f"{made} tokens where {most} were allowed")
        may_hold = self._sampling.include_stop or self._sampling.min_tokens
        if not may_hold and any(stop in text for stop in self._sampling.stop):
            self._refuse("a text that holds a stop text, which it should end before")
        if self._sampling.logprobs is not None and text and not self._scored:
            self._refuse("no log-probabilities, which were asked for; leave `logprobs` out of the upstream's `honours`")
        details = self._usage.prompt_tokens_details
        return TextDelta(
            "",
            made - self._counted,
            finish=self._finish,
            read=self._usage.prompt_tokens,
            cached=(details and details.cached_tokens) or 0,
        )

    def _read_choice(self, chunk: _Chunk, choice: _Choice) -> Iterator[TextDelta]:
        said = choice.delta or _Said()
        if choice.index or said.tool_calls:
            self._refuse("a second text" if choice.index else "a call of a tool; it was sent no tools")
        self._thought = self._thought or bool(said.reasoning_content or said.reasoning)
        text = choice.text or said.content or said.refusal or ""
        if self._finish is not None and text:
            self._refuse("more text after its end")
        scored = self._read_logprobs(choice.logprobs) if choice.logprobs else ()
        if text or scored:
            self.begun = True
            tokens = max(len(scored), 1)
            self._counted += tokens
            self._text.append(text)
            origin = None if self._told else Origin(chunk.model or self._model, chunk.system_fingerprint)
            self._told = True
            yield TextDelta(text, tokens, scored, origin=origin)
        if choice.finish_reason is not None:
            self._finish = self._read_finish(choice.finish_reason)

    def _read_logprobs(self, given: _Logprobs) -> tuple[TokenLogprob, ...]:
        most = self._sampling.logprobs
        if most is None:
            return ()
        try:
            found = given.list_tokens(most)
        except ValueError:
            self._refuse("log-probabilities whose lists differ in length")
        if most and any(not each.top for each in found):
            self._refuse("log-probabilities without the likeliest tokens, which were asked for")
        self._scored = self._scored or bool(found)
        return tuple(found)

    def _read_finish(self, reason: str) -> Finish:
        if reason == "content_filter":
            message = f"the upstream of {self._name} ended the answer by its content filter"
            raise UpstreamError("refused", Unprocessable(message, code="upstream_content_filter"))
        if reason not in ("stop", "length"):
            self._refuse(f"a text that ended with {reason[:EXCERPT]!r}")
        return "stop" if reason == "stop" else "length"

    def _refuse(self, what: str) -> NoReturn:
        message = f"the upstream of {self._name} sent {what}"
        raise UpstreamError("bad_reply", BadGateway(message, code="upstream_bad_reply"), again=not self.begun)
