"""The wire: every body that crosses it, as pydantic types. Server and client share this file.

Native requests refuse unknown fields. Replies allow them, so that an older client reads a newer server.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

MAX_ITEMS = 4096
MAX_CANDIDATES = 256
TIMEOUT_HEADER = "x-request-timeout-ms"


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds a lone surrogate at character {error.start}, which is not Unicode") from None
    return text


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Text = Annotated[str, AfterValidator(_encodable)]
Weight = Annotated[float, AfterValidator(_finite)]
Preferences = dict[Text, Weight]
Role = Literal["system", "user", "assistant", "tool"]


class Request(BaseModel):
    """Base of native requests: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Reply(BaseModel):
    """Base of replies: unknown fields are kept."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class TextPart(Request):
    """OpenAI's content part; only text is read."""

    type: Literal["text"]
    text: Text


class Message(Request):
    """One turn. ``content`` may be OpenAI's list of text parts; it is joined."""

    role: Role
    content: Text
    name: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _join_parts(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("content"), list):
            try:
                parts = [TextPart.model_validate(part) for part in value["content"]]
            except ValidationError:
                raise ValueError('only text is read: a part of content is {"type": "text", "text": "..."}') from None
            return {**value, "content": "".join(part.text for part in parts)}
        return value

    def plain(self) -> dict[str, str]:
        """``{role, content}``, what a chat template reads."""
        return {"role": self.role, "content": self.content}


Prompt = Text | list[Message]
Candidate = Text | list[Message]


# --------------------------------------------------------------------------- score


class ScoreItem(Request):
    """A finished conversation, a prompt with candidates, or a prompt with steps: one of the three."""

    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    prompt: Prompt | None = None
    candidates: Annotated[list[Candidate], Field(min_length=1, max_length=MAX_CANDIDATES)] | None = None
    steps: Annotated[list[Text], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "ScoreItem":
        if self.messages is not None:
            if self.prompt is not None or self.candidates is not None or self.steps is not None:
                raise ValueError("`messages` stands alone: drop prompt, candidates and steps")
        elif self.prompt is None or (self.candidates is None) == (self.steps is None):
            raise ValueError("give `messages`, or `prompt` with `candidates`, or `prompt` with `steps`")
        return self


class ScoreRequest(Request):
    """``POST /v1/score``."""

    items: Annotated[list[ScoreItem], Field(min_length=1, max_length=MAX_ITEMS)]
    rewards: Annotated[list[Text], Field(min_length=1)] | None = None
    preferences: Preferences | None = None
    soup: bool = False
    on_error: Literal["fail", "item"] = "fail"
    truncate: bool = False
    fingerprint: Text | dict[Text, Text] | None = None
    priority: Literal["interactive", "default", "batch"] = "default"


class Score(Reply):
    """One objective's reward: as the head gave it, and standardised by the artifact's mean and deviation."""

    raw: float
    calibrated: float


class ErrorDetail(Reply):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(Reply):
    """The body of every refusal."""

    error: ErrorDetail
    request_id: str | None = None


class CandidateScore(Reply):
    """One candidate's scores; ``scores`` is null exactly when ``error`` is not."""

    index: int
    scores: dict[str, Score] | None = None
    reward: float | None = None
    tokens: int = 0
    cached_tokens: int = 0
    truncated: bool = False
    error: ErrorDetail | None = None


class ItemScore(Reply):
    """One item's candidates, in the order sent."""

    index: int
    candidates: list[CandidateScore]
    error: ErrorDetail | None = None


class Usage(Reply):
    """Tokens read and made."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class ScoreReply(Reply):
    """The answer of ``/v1/score``."""

    object: Literal["list"] = "list"
    fingerprint: dict[str, str]
    preferences: dict[str, float] | None = None
    data: list[ItemScore]
    usage: Usage


# --------------------------------------------------------------------------- preferences


class PreferencesRequest(Request):
    """``POST /v1/preferences``: labels for prompts with two or more candidates each."""

    items: Annotated[list[ScoreItem], Field(min_length=1, max_length=MAX_ITEMS)]
    rewards: Annotated[list[Text], Field(min_length=1)] | None = None
    preferences: Preferences | None = None
    soup: bool = False
    tie_margin: Annotated[NonNegativeFloat, AfterValidator(_finite)] = 0.0
    format: Literal["full", "trl", "ranking"] = "full"
    matrix: bool = False
    on_error: Literal["fail", "item"] = "fail"
    truncate: bool = False
    fingerprint: Text | dict[Text, Text] | None = None
    priority: Literal["interactive", "default", "batch"] = "default"


class Label(Reply):
    """Which candidate is preferred, by how much, and how surely.

    ``chosen`` is the first of ``ranking`` and ``rejected`` the last. ``margin`` is the weighted reward of the one
    minus that of the other, ``probability`` Bradley-Terry's of the one over the other, with the artifact's
    temperature. ``matrix[i][j]`` is P(candidate i over j). An item of which a candidate failed has an error only.
    """

    index: int
    ranking: list[int] | None = None
    chosen: int | None = None
    rejected: int | None = None
    margin: float | None = None
    probability: float | None = None
    tie: bool | None = None
    matrix: list[list[float]] | None = None
    candidates: list[CandidateScore] = []
    error: ErrorDetail | None = None


class TrlLabel(Reply):
    """A row of TRL's conversational preference format, with its scores."""

    index: int
    prompt: list[dict[str, str]] | None = None
    chosen: list[dict[str, str]] | None = None
    rejected: list[dict[str, str]] | None = None
    chosen_score: float | None = None
    rejected_score: float | None = None
    margin: float | None = None
    probability: float | None = None
    tie: bool | None = None
    error: ErrorDetail | None = None


class RankingLabel(Reply):
    """Only the order, best first."""

    index: int
    ranking: list[int] | None = None
    error: ErrorDetail | None = None


class PreferencesReply(Reply):
    """The answer of ``/v1/preferences``; ``data`` follows the request's ``format``."""

    object: Literal["list"] = "list"
    fingerprint: dict[str, str]
    preferences: dict[str, float] | None = None
    data: list[Label] | list[TrlLabel] | list[RankingLabel]
    usage: Usage


# --------------------------------------------------------------------------- generation


class SoupOptions(Request):
    """How weights become a soup: sum of deltas or of factors, on the simplex or as given."""

    semantics: Literal["delta", "factor"] = "delta"
    normalize: Literal["simplex", "none"] = "simplex"


class CandidateOptions(Request):
    """Best-of-n by the loaded reward models."""

    n: Annotated[PositiveInt, Field(le=64)] = 4
    select: Literal["best", "soft", "all"] = "best"
    preferences: Preferences | None = None
    temperature: Annotated[NonNegativeFloat, AfterValidator(_finite)] | None = None


class StreamOptions(Request):
    """OpenAI's ``stream_options``."""

    include_usage: bool = False
    include_obfuscation: bool = False


class GenerationRequest(Request):
    """What chat and completions share."""

    model: Text | None = None
    max_tokens: PositiveInt | None = None
    temperature: Annotated[float, Field(ge=0, le=2), AfterValidator(_finite)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1), AfterValidator(_finite)] = 1.0
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


# --------------------------------------------------------------------------- models


class ModelCard(Reply):
    """One entry of ``/v1/models``: OpenAI's four fields and what the artifact says of itself."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "tureen"
    kind: Literal["reward", "policy", "preset"]
    objectives: list[str] = []
    version: str | None = None
    fingerprint: str | None = None
    base: str | None = None
    max_length: int | None = None
    steering: list[str] = []
    presets: dict[str, dict[str, float]] = {}
    calibration: dict[str, dict[str, float]] = {}
    runtime: str | None = None


class ModelList(Reply):
    """The answer of ``/v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
