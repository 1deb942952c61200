"""Read the prompts of ``/v1/completions``: texts, or token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tureen.errors import TureenError, Unprocessable
from tureen.wire import CompletionRequest
from tureen_serve.generation.plan import Plan
from tureen_serve.generation.prompts import read_text
from tureen_serve.generation.texts import Echo
from tureen_serve.inference.pieces import GoOn
from tureen_serve.inference.text_limits import TextLimits, check_text_bytes
from tureen_serve.runtimes.upstream_contract import Prompt, SpokenPrompt


@dataclass(frozen=True)
class CompletionPrompt:
    """One prompt.

    Attributes:
        text: as it was sent, or the text of its ids.
        versions: what the policy reads: for each variation, or once for all of them.
    """

    text: str
    versions: Sequence[Prompt]


def check_prompts(body: CompletionRequest, planned: Plan) -> None:
    """Refuse what needs the tokens of the prompt where they are not those that were sent, or are not known here.

    Who counts the tokens of a prompt in which preferences are written would take the numbers of wrong tokens.

    Raises:
        Unprocessable: it is asked for.
    """
    ids = not isinstance(body.prompts()[0], str)
    name = planned.family.name
    if planned.family.renderer is None:
        asked = {
            "prompt": ids,
            "echo": body.echo,
            "prompt_logprobs": body.prompt_logprobs is not None,
            "max_tokens": body.max_tokens == 0,
            "add_special_tokens": not body.add_special_tokens,
        }
        problem, remedy = f"the upstream of {name} has its own tokenizer", "this server cannot do this with its prompts"
    elif any(any(variation.told.values()) for variation in planned.variations):
        asked = {
            "prompt": ids,
            "echo": body.echo and body.logprobs is not None,
            "prompt_logprobs": body.prompt_logprobs is not None,
        }
        problem, remedy = f"{name} writes the preferences into the prompt", "its tokens would not be those of yours"
    else:
        return
    for param in (name for name, wanted in asked.items() if wanted):
        message = f"{problem}, so {remedy}"
        advice = "send text" if param == "prompt" else f"leave `{param}` out"
        raise Unprocessable(f"{message}; {advice}", param=param, code="unsupported_parameter")


def read_prompts(body: CompletionRequest, planned: Plan, limits: TextLimits, go_on: GoOn) -> list[CompletionPrompt]:
    """Read all prompts of a request.

    Raises:
        PayloadTooLarge: a text is too large.
        Unprocessable: a text cannot be read, or an id is none of the tokenizer's.
    """
    found = []
    prompts: list[Any] = [*body.prompts()]
    single = body.prompts() is not body.prompt
    for index, prompt in enumerate(prompts):
        go_on()
        param = "prompt" if single else f"prompt[{index}]"
        if isinstance(prompt, str):
            check_text_bytes(prompt, limits, param)
            found.append(_read_text(body, planned, prompt, param))
        else:
            found.append(_read_ids(planned, prompt, param))
    return found


def _read_text(body: CompletionRequest, planned: Plan, text: str, param: str) -> CompletionPrompt:
    try:
        versions = [read_text(planned, each, body.add_special_tokens) for each in planned.steer_text(text)]
    except TureenError as error:
        raise error.copy(param) from None
    if any(not isinstance(each, SpokenPrompt) and not each for each in versions):
        raise Unprocessable("the prompt is empty: send some text to continue", param=param)
    return CompletionPrompt(text, versions)


def _read_ids(planned: Plan, ids: Sequence[int], param: str) -> CompletionPrompt:
    renderer = planned.family.renderer
    if renderer is None:
        raise Unprocessable("an upstream takes no token ids; send text", param=param)
    tokenizer = renderer.tokenizer
    known = len(tokenizer)
    strange = next((each for each in ids if each >= known), None)
    if strange is not None:
        message = f"{strange} is not a token of {planned.family.name}; its ids are 0 to {known - 1}"
        raise Unprocessable(message, param=param, code="invalid_token_ids")
    return CompletionPrompt(_decode(tokenizer, ids), [list(ids)])


def make_echo(tokenizer: Any, ids: Sequence[int], text: str | None) -> Echo:
    """Make what a reply repeats of a prompt. Without its text, which was cut, it is the text of its ids."""
    return Echo(_decode(tokenizer, ids) if text is None else text, (_decode(tokenizer, ids[:1]), ids[0]))


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)
    return text
