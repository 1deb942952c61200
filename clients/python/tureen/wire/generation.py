"""The requests of ``/v1/chat/completions`` and ``/v1/completions``: OpenAI's fields, and those that steer a policy."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    StrictInt,
    Tag,
    model_validator,
)

from tureen.mixes import Normalize
from tureen.wire.base import (
    MAX_MESSAGES,
    Many,
    Message,
    Preferences,
    Request,
    TemplateRequest,
    Text,
    check_finite,
)

MAX_STOPS = 64
MAX_STOP_TOKENS = 256
MAX_LOGPROBS = 20
MAX_PROMPTS = 256
TokenIds = Annotated[list[Annotated[StrictInt, Field(ge=0)]], Many(least=1)]


def _sort_prompt(given: Any) -> str:
    """Tell by the first value what a prompt is, so that an error names the right field."""
    if not isinstance(given, list | tuple):
        return "a text"
    first = given[0] if given else ""
    return "ids" if isinstance(first, int) else "lists of ids" if isinstance(first, list | tuple) else "texts"


Prompt = Annotated[
    Annotated[Text, Tag("a text")]
    | Annotated[list[Text], Many(MAX_PROMPTS, least=1), Tag("texts")]
    | Annotated[TokenIds, Tag("ids")]
    | Annotated[list[TokenIds], Many(MAX_PROMPTS, least=1), Tag("lists of ids")],
    Discriminator(_sort_prompt),
]


class SoupOptions(Request):
    """How preference weights become a soup.

    Attributes:
        semantics: ``delta`` sums the experts' updates, Σ wᵢ·Bᵢ·Aᵢ; ``factor`` sums their factors, (Σ wᵢ·Bᵢ)(Σ wⱼ·Aⱼ).
        normalize: ``simplex`` divides the weights by their sum; ``none`` uses them as given.
    """

    semantics: Literal["delta", "factor"] = "delta"
    normalize: Normalize = "simplex"


class CandidateOptions(Request):
    """Generate several candidates and select among them by the loaded reward models.

    Attributes:
        n: the number of candidates.
        select: ``best`` returns the one with the highest weighted reward, ``soft`` draws one, ``all`` returns all.
        preferences: the weights of the rewards; by default the request's weights, of objectives with a loaded reward.
        normalize: how ``preferences`` are read: ``simplex`` divides the weights by their sum, ``none`` uses them as
            given, negative ones too. Without ``preferences`` it is that of the request's weights.
        temperature: with ``soft``, the draw is by softmax(reward / temperature); 1 by default.
    """

    n: Annotated[PositiveInt, Field(le=64)] = 4
    select: Literal["best", "soft", "all"] = "best"
    preferences: Preferences | None = None
    normalize: Normalize | None = None
    temperature: Annotated[NonNegativeFloat, AfterValidator(check_finite)] | None = None


class StreamOptions(Request):
    """OpenAI's ``stream_options``; of vLLM ``continuous_usage_stats``: the usage so far in every chunk."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


class ResponseFormat(Request):
    """OpenAI's ``response_format``: any text, a JSON object, or JSON that a schema describes.

    Attributes:
        json_schema: ``{"name", "schema"}``, and ``description`` and ``strict``, which change nothing: every schema is
            enforced.
    """

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class GenerationRequest(Request):
    """The fields of both chat and completion requests.

    Attributes:
        preferences: the weights of the objectives; a list of such maps is a sweep.
        desired_rewards: for a policy that is steered by reward tags: the normalised reward of each objective, in the
            place of ``preferences``; a list of such maps is a sweep.
        mapping: for such a policy: how preferences become desired rewards.
        top_k: draw among so many of the likeliest tokens; 0 or -1 for all.
        min_p: draw among the tokens with at least this share of the likeliest one's probability.
        repetition_penalty: above 1 tokens of the prompt and of the text become less likely, below 1 likelier.
        min_tokens: nothing ends a text before so many tokens.
        ignore_eos: the model's own marks of the end do not end a text.
        stop_token_ids: tokens that end a text.
        include_stop_str_in_output: what ends a text is part of it.
        skip_special_tokens: special tokens are no part of a text.
        prompt_logprobs: report the log-probabilities of the prompt's tokens, and of so many of the likeliest tokens in
            the place of each.
        structured_outputs: vLLM's field: one of ``json``, ``json_object``, ``regex``, ``choice`` and ``grammar``, which
            the text then satisfies.
    """

    model: Text | None = None
    max_tokens: PositiveInt | None = None
    temperature: Annotated[float, Field(ge=0, le=2), AfterValidator(check_finite)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1), AfterValidator(check_finite)] = 1.0
    top_k: Annotated[StrictInt, Field(ge=-1, lt=2**31)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    n: Annotated[PositiveInt, Field(le=64)] = 1
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Text | Annotated[list[Text], Many(MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[Annotated[StrictInt, Field(ge=0)]], Many(MAX_STOP_TOKENS)] | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    ignore_eos: bool = False
    min_tokens: NonNegativeInt = 0
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Text | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    logit_bias: dict[str, float] | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: dict[str, Any] | None = None

    preferences: Preferences | Annotated[list[Preferences], Many(64, least=1)] | None = None
    preset: Text | None = None
    soup: SoupOptions = SoupOptions()
    candidates: CandidateOptions | None = None
    desired_rewards: Preferences | Annotated[list[Preferences], Many(64, least=1)] | None = None
    mapping: Literal["l2", "linf", "linear"] | None = None
    truncate: bool = False
    priority: Literal["interactive", "default", "batch"] = "default"

    def stops(self) -> list[str]:
        """Return ``stop`` as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


class ChatRequest(GenerationRequest, TemplateRequest):
    """The body of ``POST /v1/chat/completions``: OpenAI's fields and Tureen's.

    Attributes:
        add_generation_prompt: end the prompt where the template opens an answer.
        continue_final_message: continue the last message, the assistant's, in the place of opening an answer.
        reasoning_effort: given to the template, if it reads ``reasoning_effort`` or ``enable_thinking``.
        tool_choice: ``none``, ``auto``, ``required``, ``{"type": "function", "function": {"name": ...}}``, or
            ``{"type": "allowed_tools", "allowed_tools": {"mode": ..., "tools": [...]}}``.
    """

    messages: Annotated[list[Message], Many(MAX_MESSAGES, least=1)]
    max_completion_tokens: PositiveInt | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    prediction: dict[str, Any] | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] | None = None
    parallel_tool_calls: bool | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    modalities: Annotated[list[Literal["text"]], Many(1)] | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Text | None = None

    @model_validator(mode="after")
    def _logprobs_agree(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("`top_logprobs` needs `logprobs: true`")
        return self

    def limit(self) -> int | None:
        """Return the maximum number of tokens: ``max_completion_tokens`` if given, else ``max_tokens``."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(GenerationRequest):
    """The body of ``POST /v1/completions``: continue texts, without a chat template.

    Attributes:
        prompt: a text or the token ids of one, or a list of either.
        max_tokens: 0 only reads the prompt.
        echo: begin each text with its prompt; with ``logprobs`` also the log-probabilities with those of its tokens.
        add_special_tokens: put those tokens around a text that its tokenizer puts there, such as BOS.
        return_tokens_as_token_ids: write tokens as ``token_id:5`` in ``logprobs``.
        best_of: write so many texts, and send the ``n`` with the highest log-probability per token.
    """

    prompt: Prompt
    max_tokens: NonNegativeInt | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool = False
    add_special_tokens: bool = True
    return_tokens_as_token_ids: bool = False
    best_of: Annotated[PositiveInt, Field(le=64)] | None = None
    suffix: None = None

    def limit(self) -> int | None:
        """Return the maximum number of tokens; by default 16, as in OpenAI's API."""
        return 16 if self.max_tokens is None else self.max_tokens

    def prompts(self) -> list[str] | list[list[int]]:
        """Return the prompts as a list, also where there is only one."""
        given: Any = self.prompt
        return [given] if isinstance(given, str) or isinstance(given[0], int) else given
