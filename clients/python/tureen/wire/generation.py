"""``/v1/chat/completions`` and ``/v1/completions``: OpenAI's requests, with what steers a policy."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt, model_validator

from tureen.wire.base import Message, Preferences, Request, Text, check_finite


class SoupOptions(Request):
    """How weights become a soup: sum of deltas or of factors, on the simplex or as given."""

    semantics: Literal["delta", "factor"] = "delta"
    normalize: Literal["simplex", "none"] = "simplex"


class CandidateOptions(Request):
    """Best-of-n by the loaded reward models."""

    n: Annotated[PositiveInt, Field(le=64)] = 4
    select: Literal["best", "soft", "all"] = "best"
    preferences: Preferences | None = None
    temperature: Annotated[NonNegativeFloat, AfterValidator(check_finite)] | None = None


class StreamOptions(Request):
    """OpenAI's ``stream_options``."""

    include_usage: bool = False
    include_obfuscation: bool = False


class GenerationRequest(Request):
    """What chat and completions share."""

    model: Text | None = None
    max_tokens: PositiveInt | None = None
    temperature: Annotated[float, Field(ge=0, le=2), AfterValidator(check_finite)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1), AfterValidator(check_finite)] = 1.0
    n: Annotated[PositiveInt, Field(le=64)] = 1
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Text | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    logit_bias: dict[str, float] | None = None

    preferences: Preferences | Annotated[list[Preferences], Field(min_length=1, max_length=64)] | None = None
    preset: Text | None = None
    soup: SoupOptions = SoupOptions()
    candidates: CandidateOptions | None = None
    desired_rewards: Preferences | None = None
    truncate: bool = False
    priority: Literal["interactive", "default", "batch"] = "default"

    def stops(self) -> list[str]:
        """``stop`` as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


class ResponseFormat(Request):
    """OpenAI's ``response_format``; only plain text is made."""

    type: Literal["text"]


class ChatRequest(GenerationRequest):
    """``POST /v1/chat/completions``: OpenAI's fields and ours.

    Fields of OpenAI's that ask for what no Tureen policy does (tools, audio, structured output) are refused.
    """

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: PositiveInt | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None
    parallel_tool_calls: bool | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    modalities: list[Literal["text"]] | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None

    @model_validator(mode="after")
    def _logprobs_agree(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("`top_logprobs` needs `logprobs: true`")
        return self

    def limit(self) -> int | None:
        """The most tokens to make; OpenAI's newer name wins."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(GenerationRequest):
    """``POST /v1/completions``: text in, text out, no chat template."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=64)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] = False
    best_of: Literal[1] | None = None
    suffix: None = None

    def limit(self) -> int | None:
        """The most tokens to make; OpenAI's default here is 16."""
        return self.max_tokens or 16
