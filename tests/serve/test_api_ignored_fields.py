"""What was asked for beside the answer is told in a header, and nothing else is."""

from typing import Any

import pytest

from tureen_serve.api.ignored_fields import list_ignored
from tureen_serve.api.text_bodies import ChatBody, CompletionBody

MESSAGES = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> ChatBody:
    return ChatBody.model_validate({"messages": MESSAGES, **fields})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"store": True, "verbosity": "low"}, ["store", "verbosity"]),
        ({"service_tier": "flex"}, ["service_tier"]),
        ({"metadata": {"a": "b"}}, ["metadata"]),
        ({"prediction": {"type": "content", "content": "x"}}, ["prediction"]),
        (
            {"prompt_cache_retention": "24h", "prompt_cache_options": {"x": 1}},
            ["prompt_cache_options", "prompt_cache_retention"],
        ),
        ({"reasoning_effort": "high"}, ["reasoning_effort"]),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True, "continuous_usage_stats": True}},
            ["stream_options.continuous_usage_stats", "stream_options.include_obfuscation"],
        ),
        ({"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}, []),
        ({"store": False, "verbosity": "medium", "service_tier": "auto", "metadata": {}}, []),
        ({"reasoning_effort": "none", "user": "u", "safety_identifier": "s", "prompt_cache_key": "k"}, []),
        ({}, []),
    ],
)
def test_fields_without_an_effect_are_told(fields: dict[str, Any], told: list[str]) -> None:
    assert list_ignored(chat(**fields), upstream=False) == told


def test_an_effort_that_the_template_reads_has_an_effect() -> None:
    assert list_ignored(chat(reasoning_effort="high"), upstream=False, thinks=True) == []


def test_an_upstream_counts_no_tokens_while_it_writes() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = CompletionBody.model_validate({"prompt": "hi", "stream": True, "stream_options": options})
    assert list_ignored(body, upstream=True) == ["stream_options.continuous_usage_stats"]
