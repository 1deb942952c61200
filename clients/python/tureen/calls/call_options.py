"""The keyword arguments of the client's methods, for type checkers and editors.

The wire types validate the values. A test checks that the names here equal theirs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from tureen.calls.chunks import Chunks
from tureen.errors import TureenError
from tureen.mixes import Normalize
from tureen.retry import Retries
from tureen.wire import (
    CandidateOptions,
    ChoicePair,
    ExpiresAfter,
    Message,
    ResponseFormat,
    ScoreItem,
    SoupOptions,
    StreamOptions,
)

Items = Iterable[ScoreItem | dict[str, Any]]
Choices = Iterable[ChoicePair | dict[str, Any]]
Messages = str | Iterable[Message | dict[str, Any]]
Prompt = str | Iterable[str] | Iterable[int] | Iterable[Sequence[int]]
Weights = Mapping[str, float]


class Patience(TypedDict, total=False):
    """Timeouts, retries and request sizes of a client; see :class:`tureen.calls.request_flows.Calls`."""

    timeout: float
    retries: Retries
    chunks: Chunks
    poll: float
    on_retry: Callable[[TureenError, float], object] | None


class CallOptions(TypedDict, total=False):
    """``deadline``: the seconds that a call may last, with all its requests and retries."""

    deadline: float | None


class ScoreOptions(CallOptions, total=False):
    """The fields of ``wire.ScoreRequest`` beside ``items``."""

    rewards: Sequence[str] | None
    preferences: Weights | None
    normalize: Normalize
    soup: bool
    on_error: Literal["fail", "item"]
    truncate: bool
    fingerprint: str | Mapping[str, str] | None
    priority: Literal["interactive", "default", "batch"]


class PreferencesOptions(ScoreOptions, total=False):
    """The fields of ``wire.PreferencesRequest`` beside ``items``."""

    tie_margin: float
    format: Literal["full", "trl", "ranking"]
    matrix: bool
    comparisons: Literal["all", "knockout"]


class FitOptions(CallOptions, total=False):
    """The fields of ``wire.FitRequest`` beside ``pairs``."""

    rewards: Sequence[str] | None
    level: float
    width: float
    preset: str
    truncate: bool
    fingerprint: str | Mapping[str, str] | None
    priority: Literal["interactive", "default", "batch"]


class SweepOptions(CallOptions, total=False):
    """The generation fields that a sweep takes."""

    model: str | None
    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    include_stop_str_in_output: bool
    skip_special_tokens: bool
    ignore_eos: bool
    min_tokens: int
    user: str | None
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: Mapping[str, float] | None
    prompt_logprobs: int | None
    response_format: ResponseFormat | dict[str, Any] | None
    structured_outputs: dict[str, Any] | None
    soup: SoupOptions | dict[str, Any]
    candidates: CandidateOptions | dict[str, Any] | None
    mapping: Literal["l2", "linf", "linear"] | None
    truncate: bool
    priority: Literal["interactive", "default", "batch"]


class GenerationOptions(SweepOptions, total=False):
    """The fields of ``wire.GenerationRequest`` beside ``stream``."""

    n: int
    stream_options: StreamOptions | dict[str, Any] | None
    preferences: Weights | Sequence[Weights] | None
    preset: str | None
    desired_rewards: Weights | Sequence[Weights] | None


class ChatOptions(GenerationOptions, total=False):
    """The fields of ``wire.ChatRequest`` beside ``messages`` and ``stream``."""

    max_completion_tokens: int | None
    logprobs: bool
    top_logprobs: int | None
    add_generation_prompt: bool
    continue_final_message: bool
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    verbosity: Literal["low", "medium", "high"] | None
    prediction: Mapping[str, Any] | None
    store: bool | None
    metadata: Mapping[str, str] | None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None
    parallel_tool_calls: bool | None
    tools: Sequence[Any] | None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None
    chat_template_kwargs: Mapping[str, Any] | None
    modalities: Sequence[Literal["text"]] | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    prompt_cache_options: Mapping[str, Any] | None
    prompt_cache_retention: str | None


class CompletionOptions(GenerationOptions, total=False):
    """The fields of ``wire.CompletionRequest`` beside ``prompt`` and ``stream``."""

    logprobs: int | None
    echo: bool
    add_special_tokens: bool
    return_tokens_as_token_ids: bool
    best_of: int | None
    suffix: None


class BatchOptions(CallOptions, total=False):
    """The optional fields of ``wire.BatchRequest``, and the idempotency key that lets retries create only one batch."""

    metadata: Mapping[str, str] | None
    output_expires_after: ExpiresAfter | dict[str, Any] | None
    idempotency_key: str | None
