"""List the texts of a plan, each with its prompt cut to the context and its sampling. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tureen.errors import Unprocessable
from tureen.wire import ChatRequest, CompletionRequest
from tureen_serve.generation.method import Request, Variation
from tureen_serve.generation.plan import Plan
from tureen_serve.runtimes.grammars import Grammar
from tureen_serve.runtimes.sampling_fields import Sampling
from tureen_serve.runtimes.upstream_contract import Prompt, SpokenPrompt

DEFAULT_TOKENS = 512
STRONGEST_BIAS = 100


@dataclass(frozen=True)
class Echo:
    """A prompt that the reply repeats before its text: its text, and its first token as text and as id."""

    text: str
    first: tuple[str, int]


@dataclass(frozen=True)
class TextTask:
    """One text to write.

    Attributes:
        number: index of the prompt in the request.
        prompt: its token ids; for an upstream, as it is spoken.
        echo: the prompt as the reply repeats it, if it does.
        begun: the beginning of the answer, if the prompt has it.
    """

    number: int
    variation: Variation
    prompt: Prompt
    sampling: Sampling
    echo: Echo | None = None
    begun: str = ""


def plan_texts(
    request: Request,
    planned: Plan,
    prompts: Sequence[Sequence[Prompt]],
    grammar: Grammar | None = None,
    begun: str = "",
) -> list[TextTask]:
    """List every text: by prompt, then variation, then choice, then candidate. Text i is drawn with ``seed`` + i.

    Args:
        prompts: each prompt: for each variation, or once for all of them.
        grammar: what each text must satisfy.
        begun: the beginning of the answer, if the prompts have it.

    Raises:
        Unprocessable: a prompt does not fit the context, or a sampling field cannot be used.
    """
    renderer = planned.family.renderer
    vocabulary = None if renderer is None else len(renderer.tokenizer)
    sampling = replace(_sampling(request, vocabulary), grammar=grammar)
    written: list[TextTask] = []
    for number, versions in enumerate(prompts):
        fitted = [_fit_version(request, planned, each) for each in versions]
        if len(fitted) == 1:
            fitted *= len(planned.variations)
        for variation, (prompt, room) in zip(planned.variations, fitted, strict=True):
            for _ in range(planned.writes):
                seed = None if request.seed is None else request.seed + len(written)
                drawn = replace(sampling, max_tokens=room, seed=seed)
                written.append(TextTask(number, variation, prompt, drawn, begun=begun))
    return written


def _fit_version(request: Request, planned: Plan, prompt: Prompt) -> tuple[Prompt, int]:
    """Fit a prompt as :func:`fit_prompt` does, and refuse to cut off what steers it. An upstream fits its own."""
    if isinstance(prompt, SpokenPrompt):
        if request.truncate:
            message = f"the upstream of {planned.family.name} has its own tokenizer, so this server cannot cut a prompt"
            raise Unprocessable(f"{message}; leave it out", param="truncate", code="unsupported_parameter")
        return prompt, _count_asked(request)
    kept, room = fit_prompt(request, prompt, planned.family.context)
    if len(kept) < len(prompt) and not planned.method.survives_cut:
        message = "`truncate` would cut off the beginning of the prompt, which says what is wanted"
        raise Unprocessable(f"{message}; shorten the prompt", param="truncate", code="context_length_exceeded")
    return kept, room


def fit_prompt(request: Request, ids: Sequence[int], context: int) -> tuple[Sequence[int], int]:
    """Return the prompt, and the largest number of tokens that may follow it. ``truncate`` cuts the prompt's beginning.

    Args:
        context: the largest number of tokens of prompt and answer together.

    Raises:
        Unprocessable: prompt and answer do not fit the context.
    """
    newer = isinstance(request, ChatRequest) and request.max_completion_tokens is not None
    given = request.max_tokens is not None or newer
    asked = _count_asked(request)
    least = asked if given else max(1, request.min_tokens)
    param = "max_completion_tokens" if newer else "max_tokens" if given or least == 1 else "min_tokens"
    # LiteLLM searches for "this model's maximum context length is", LangChain for "prompt is too long"
    told = f"this model's maximum context length is {context} tokens"
    if least >= context:
        message = f"{told}; an answer of {least} leaves no room for a prompt, lower `{param}`"
        raise Unprocessable(message, param=param, code="context_length_exceeded")
    if len(ids) + least <= context:
        return ids, min(asked, context - len(ids))
    if not request.truncate:
        message = f"the prompt is too long: {told}, the prompt has {len(ids)} and the answer needs {least}"
        at = (
            param
            if (given or least > 1) and len(ids) < context
            else ("messages" if isinstance(request, ChatRequest) else "prompt")
        )
        raise Unprocessable(
            f"{message}; shorten the prompt, or send `truncate: true`", param=at, code="context_length_exceeded"
        )
    room = asked if given else max(least, min(asked, context // 2))
    return ids[len(ids) - (context - room) :], room


def _count_asked(request: Request) -> int:
    """Count the tokens that a text may have at most, before its prompt is fitted.

    Raises:
        Unprocessable: that is less than ``min_tokens``.
    """
    limit = request.limit()
    if limit is None:
        return max(DEFAULT_TOKENS, request.min_tokens)
    if request.min_tokens > limit:
        message = f"a text of {request.min_tokens} tokens at least and of {limit} at most cannot be"
        raise Unprocessable(f"{message}; lower `min_tokens`, or raise `max_tokens`", param="min_tokens")
    return limit


def _sampling(request: Request, vocabulary: int | None) -> Sampling:
    stops = tuple(request.stops())
    if "" in stops:
        raise Unprocessable("a stop text cannot be empty; leave it out", param="stop")
    if isinstance(request, ChatRequest):
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
    else:
        logprobs = 0 if request.best_of and request.logprobs is None else request.logprobs
    return Sampling(
        max_tokens=0,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=max(request.top_k, 0),
        min_p=request.min_p,
        min_tokens=request.min_tokens,
        ignore_eos=request.ignore_eos,
        stop=stops,
        stop_tokens=tuple(request.stop_token_ids or ()),
        include_stop=request.include_stop_str_in_output,
        skip_special=request.skip_special_tokens,
        logprobs=logprobs,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=_bias(request.logit_bias or {}, vocabulary),
        prompt_logprobs=_count_prompt_logprobs(request),
    )


def _count_prompt_logprobs(request: Request) -> int | None:
    """Return the number of alternatives to compute for each token of a prompt; None for no log-probabilities."""
    echoed = request.logprobs if isinstance(request, CompletionRequest) and request.echo else None
    return max((count for count in (request.prompt_logprobs, echoed) if count is not None), default=None)


def _bias(given: Mapping[str, float], vocabulary: int | None) -> tuple[tuple[int, float], ...]:
    """Read the biases. ``vocabulary`` is None for an upstream, which knows its own."""
    for token, bias in given.items():
        param = f"logit_bias.{token}"
        number = int(token) if token.isascii() and token.isdigit() and len(token) < 10 else -1
        if number < 0 or (vocabulary is not None and number >= vocabulary):
            known = "whole numbers" if vocabulary is None else f"0 to {vocabulary - 1}"
            raise Unprocessable(f"{token!r} is not a token id; ids are {known}", param=param)
        if not abs(bias) <= STRONGEST_BIAS:
            raise Unprocessable(f"a bias must be between -{STRONGEST_BIAS} and {STRONGEST_BIAS}", param=param)
    return tuple((int(token), bias) for token, bias in given.items())
