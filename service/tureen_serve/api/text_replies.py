"""Build OpenAI's replies for generated text, whole or in chunks, with our additions. Pure."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from tureen_serve.api.completion_replies import CompletionReplyShape
from tureen_serve.api.finite_logprobs import write_prompt_logprobs
from tureen_serve.api.reward_replies import build_scores
from tureen_serve.generation.method import Variation
from tureen_serve.generation.plan import Plan
from tureen_serve.generation.select import Choice, Written
from tureen_serve.generation.texts import TextTask
from tureen_serve.inference.engine import Reward
from tureen_serve.runtimes.contract import Finish, Origin, TextDelta, TokenLogprob

Json = dict[str, Any]


class ReplyShape(Protocol):
    """The parts of a reply that differ between chats and completions.

    Attributes:
        prefix: of the reply's id.
        whole: the ``object`` of a whole reply.
        piece: the ``object`` of a chunk.
    """

    prefix: str
    whole: str
    piece: str

    def choice(self, text: str, logprobs: Sequence[TokenLogprob] | None, finish: Finish) -> Json:
        """Build the choice for a finished text."""

    def opening(self) -> Json | None:
        """Build the first choice of a streamed text, before its first token; None if there is none."""

    def deltas(self, index: int, delta: TextDelta, offset: int) -> list[Json]:
        """Build the choices for the next piece of text ``index``, which starts at character ``offset``.

        As in OpenAI's streams, content and ``finish_reason`` are in separate chunks. ``delta.logprobs`` are those to
        tell.
        """


class TextReply:
    """One reply, whole or as a stream of chunks. All chunks share its id, time, model and fingerprint.

    Args:
        prompt_logprobs: how many of the likeliest tokens are told for each token of a prompt; None for no
            ``prompt_logprobs``.
    """

    def __init__(
        self, shape: ReplyShape, planned: Plan, with_logprobs: bool, prompt_logprobs: int | None = None
    ) -> None:
        self._shape = shape
        self._planned = planned
        self._with_logprobs = with_logprobs
        self._prompt_logprobs = prompt_logprobs
        self._common = {
            "id": shape.prefix + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": planned.model,
            "system_fingerprint": planned.fingerprint,
        }

    @property
    def additions(self) -> Json:
        """Tureen's own fields of a whole reply and of the first chunk of a stream."""
        planned = self._planned
        return {"preferences": planned.preferences, "steering": planned.steering, "experts": planned.experts}

    def whole(self, choices: Sequence[Choice], rewards: Mapping[str, Reward], usage: Json) -> Json:
        """Build the whole reply."""
        shaped = [self._choice(index, choice, rewards) for index, choice in enumerate(choices)]
        return {**self._common, "object": self._shape.whole, "choices": shaped, "usage": usage, **self.additions}

    def _choice(self, index: int, choice: Choice, rewards: Mapping[str, Reward]) -> Json:
        written = choice.written
        logprobs = written.logprobs if self._with_logprobs else None
        shaped = {
            "index": index,
            **self._write(written, logprobs),
            **self._prompt(written),
            **_tell(choice.variation),
            **_tell_origin(written.origin),
        }
        if choice.raw is None:
            return shaped
        scales = {name: rewards[name].calibration for name in choice.raw}
        scores = {name: score.model_dump() for name, score in build_scores(choice.raw, scales).items()}
        return {**shaped, "rewards": scores, "reward": choice.reward}

    def _write(self, written: Written, logprobs: Sequence[TokenLogprob] | None) -> Json:
        if written.task.echo is None or not isinstance(self._shape, CompletionReplyShape):
            return self._shape.choice(written.text, logprobs, written.finish)
        return self._shape.echoed_choice(written.task.echo, written.prompt, written.text, logprobs, written.finish)

    def _prompt(self, written: Written) -> Json:
        if self._prompt_logprobs is None:
            return {}
        return {"prompt_logprobs": write_prompt_logprobs(written.prompt or (), self._prompt_logprobs)}

    def chunk(self, choices: Sequence[Json], **more: Any) -> Json:
        """Build one event of a stream."""
        return {**self._common, "object": self._shape.piece, "choices": list(choices), **more}

    def opening(self, index: int, task: TextTask, first: TextDelta) -> Json | None:
        """Build the choice before a streamed text, with what steers it: a role, or the prompt; None if there is none.

        Args:
            first: the first delta of the text.
        """
        shaped = self._shape.opening()
        if task.echo is not None and isinstance(self._shape, CompletionReplyShape):
            shaped = self._shape.echo(task.echo, first.prompt if self._with_logprobs else None)
        return None if shaped is None else {"index": index, **shaped, **_tell(task.variation)}

    def pieces(self, index: int, delta: TextDelta, offset: int) -> list[Json]:
        """Build the choices for a delta."""
        told = delta if self._with_logprobs else replace(delta, logprobs=())
        shaped = [{"index": index, **each} for each in self._shape.deltas(index, told, offset)]
        return [{**each, **_tell_origin(delta.origin)} for each in shaped[:1]] + shaped[1:]


def _tell(variation: Variation) -> Json:
    return {"preferences": dict(variation.weights), **variation.told}


def _tell_origin(origin: Origin | None) -> Json:
    """What an upstream says of itself; nothing of a policy on this machine."""
    return {} if origin is None else {"upstream": {"model": origin.model, "system_fingerprint": origin.fingerprint}}


def build_usage(prompt_tokens: int, completion_tokens: int, cached: int = 0) -> Json:
    """Build OpenAI's ``usage``. A prompt counts once, also if several texts continue it, unless an upstream counts."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
