"""Build the bodies of requests to an upstream, and refuse sampling that it would ignore. Pure.

What the caller asks for, or our defaults where it asks for nothing, is always written out: servers have defaults of
their own, often those of the model's ``generation_config``.
"""

from typing import Any

from tureen.errors import Unprocessable
from tureen_serve.runtimes.sampling_fields import Sampling
from tureen_serve.runtimes.upstream_contract import UpstreamJob
from tureen_serve.settings import UpstreamEntry

CHAT, TEXT = "/chat/completions", "/completions"


def find_path(job: UpstreamJob) -> str:
    """Find the route below the upstream's address that writes a job's text."""
    return CHAT if job.prompt.messages else TEXT


def build_body(job: UpstreamJob, entry: UpstreamEntry) -> dict[str, Any]:
    """Build the body of the request for one text, which is streamed."""
    sampling = job.sampling
    chat = bool(job.prompt.messages)
    body: dict[str, Any] = {
        **entry.extra,
        "model": entry.model,
        **({"messages": [dict(each) for each in job.prompt.messages]} if chat else {"prompt": job.prompt.text}),
        entry.limit_field: sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    asked = _list_asked(sampling)
    if sampling.logprobs is not None:
        asked |= {"logprobs": True, "top_logprobs": sampling.logprobs} if chat else {"logprobs": sampling.logprobs}
    return body | asked


def check_sampling(sampling: Sampling, entry: UpstreamEntry, name: str) -> None:
    """Refuse sampling fields that the upstream is not known to act on.

    Args:
        name: the family's.

    Raises:
        Unprocessable: there is one; ``param`` names it.
    """
    for field in _list_asked(sampling):
        if field not in entry.honours:
            raise Unprocessable(
                f"`{field}` is not sent to the upstream of {name}, which may ignore it; leave it out, or name it in "
                f"`honours` of the upstream in the server's settings if the upstream acts on it",
                param=field,
                code="unsupported_parameter",
            )


def _list_asked(sampling: Sampling) -> dict[str, Any]:
    """List the fields that ask for something and that not every server acts on. Those with neutral values do not."""
    given = {
        "seed": sampling.seed,
        "logprobs": None if sampling.logprobs is None else True,
        "presence_penalty": sampling.presence_penalty or None,
        "frequency_penalty": sampling.frequency_penalty or None,
        "repetition_penalty": None if sampling.repetition_penalty == 1 else sampling.repetition_penalty,
        "top_k": sampling.top_k or None,
        "min_p": sampling.min_p or None,
        "min_tokens": sampling.min_tokens or None,
        "ignore_eos": sampling.ignore_eos or None,
        "stop_token_ids": list(sampling.stop_tokens) or None,
        "include_stop_str_in_output": sampling.include_stop or None,
        "skip_special_tokens": None if sampling.skip_special else False,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
    }
    return {name: value for name, value in given.items() if value is not None}
