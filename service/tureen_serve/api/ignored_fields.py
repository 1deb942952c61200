"""The fields of a request that have no effect on its answer, as the header ``X-Tureen-Ignored`` tells them.

They ask for what is done beside the answer, such as storing it, or for what the model's template does not read.
"""

from typing import Any

from tureen.wire import ChatRequest, CompletionRequest

IGNORED = "x-tureen-ignored"
DOCUMENTED: dict[str, Any] = {
    IGNORED: {
        "description": "The fields that were taken and have no effect on the answer, such as `store, verbosity`. "
        "Without the header there are none.",
        "schema": {"type": "string"},
    }
}


def list_ignored(body: ChatRequest | CompletionRequest, upstream: bool, thinks: bool = False) -> list[str]:
    """List the fields that have no effect. A value that asks for nothing is not listed.

    Args:
        upstream: whether another server writes the texts, which counts tokens only at their end.
        thinks: whether the template reads how much the model is to think.
    """
    options = body.stream_options
    asked = {
        "stream_options.include_obfuscation": options is not None and options.include_obfuscation,
        "stream_options.continuous_usage_stats": options is not None
        and options.continuous_usage_stats
        and (upstream or not options.include_usage),
    }
    if isinstance(body, ChatRequest):
        asked |= {
            "metadata": bool(body.metadata),
            "prediction": body.prediction is not None,
            "prompt_cache_options": body.prompt_cache_options is not None,
            "prompt_cache_retention": body.prompt_cache_retention is not None,
            "reasoning_effort": body.reasoning_effort not in (None, "none") and not thinks,
            "service_tier": body.service_tier not in (None, "auto", "default"),
            "store": body.store is True,
            "verbosity": body.verbosity not in (None, "medium"),
        }
    return sorted(name for name, without_effect in asked.items() if without_effect)
