"""The choices of ``/v1/completions``, with the prompt before the text where it is to be repeated. Pure."""

from collections.abc import Sequence
from typing import Any

from tureen_serve.api.finite_logprobs import write_logprob
from tureen_serve.generation.texts import Echo
from tureen_serve.runtimes.contract import Finish, TextDelta, TokenLogprob

Json = dict[str, Any]
SEARCHED = 4  # characters of a prompt that may belong to no token's text, such as one of which several tokens are parts


class CompletionReplyShape:
    """The shape of ``text_completion``, whole and in chunks.

    Args:
        alternatives: how many of the likeliest tokens are told for each token.
        as_ids: write tokens as ``token_id:5``.
    """

    prefix = "cmpl-"
    whole = "text_completion"
    piece = "text_completion"

    def __init__(self, alternatives: int | None = None, as_ids: bool = False) -> None:
        self._alternatives = alternatives
        self._as_ids = as_ids

    def choice(self, text: str, logprobs: Sequence[TokenLogprob] | None, finish: Finish) -> Json:
        """Build the whole text."""
        return self.delta(text, logprobs, finish, 0)

    def opening(self) -> Json | None:
        """Return None: a completion has no opening chunk."""
        return None

    def deltas(self, index: int, delta: TextDelta, offset: int) -> list[Json]:  # noqa: ARG002
        """Build the pieces of a text; why it ended is in one of its own."""
        told = []
        if delta.text or delta.logprobs:
            told.append(self.delta(delta.text, delta.logprobs or None, None, offset))
        if delta.finish:
            told.append(self.delta("", None, delta.finish, offset + len(delta.text)))
        return told

    def delta(self, text: str, logprobs: Sequence[TokenLogprob] | None, finish: Finish | None, offset: int) -> Json:
        """Build a piece of the text."""
        return {"text": text, "logprobs": self._logprobs(logprobs, offset), "finish_reason": finish}

    def echo(self, echo: Echo, prompt: Sequence[TokenLogprob] | None) -> Json:
        """Build the piece that repeats the prompt. Its first token has no log-probability."""
        piece = self.delta(echo.text, prompt, None, 0)
        if prompt is None:
            return piece
        told = piece["logprobs"]
        name, number = echo.first
        names = [name, *(each.token for each in prompt)]
        return {
            **piece,
            "logprobs": {
                "tokens": [self._name(name, number), *told["tokens"]],
                "token_logprobs": [None, *told["token_logprobs"]],
                "top_logprobs": [None, *told["top_logprobs"]],
                "text_offset": find_offsets(echo.text, names),
            },
        }

    def echoed_choice(
        self,
        echo: Echo,
        prompt: Sequence[TokenLogprob] | None,
        text: str,
        logprobs: Sequence[TokenLogprob] | None,
        finish: Finish,
    ) -> Json:
        """Build the whole text after its prompt."""
        first = self.echo(echo, prompt if logprobs is not None else None)
        rest = self.delta(text, logprobs, finish, len(echo.text))
        told = rest["logprobs"]
        if told is not None and first["logprobs"] is not None:
            told = {name: [*first["logprobs"][name], *told[name]] for name in told}
        return {"text": echo.text + text, "logprobs": told, "finish_reason": finish}

    def _logprobs(self, logprobs: Sequence[TokenLogprob] | None, offset: int) -> Json | None:
        if logprobs is None:
            return None
        offsets = []
        for each in logprobs:
            offsets.append(offset)
            offset += len(each.token)
        return {
            "tokens": [self._name(each.token, each.id) for each in logprobs],
            "token_logprobs": [write_logprob(each.logprob) for each in logprobs],
            "top_logprobs": [self._top(each) for each in logprobs],
            "text_offset": offsets,
        }

    def _top(self, given: TokenLogprob) -> dict[str, float]:
        """The token itself, as OpenAI has it, and the likeliest ones. Of tokens with one text the likeliest counts."""
        told: dict[str, float] = {}
        for token, number, value in ((given.token, given.id, given.logprob), *given.top[: self._alternatives]):
            name, finite = self._name(token, number), write_logprob(value)
            told[name] = max(finite, told.get(name, finite))
        return told

    def _name(self, token: str, number: int) -> str:
        return f"token_id:{number}" if self._as_ids else token


def find_offsets(text: str, tokens: Sequence[str]) -> list[int]:
    """Find where each token begins in a text, in characters.

    A token whose text is not there, such as a BOS that was put before the text, begins where the next one does.
    """
    offsets, at = [], 0
    for token in tokens:
        found = text.find(token, at, at + len(token) + SEARCHED)
        offsets.append(max(found, at))
        at = found + len(token) if found >= 0 else at
    return offsets
