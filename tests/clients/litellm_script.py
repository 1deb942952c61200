"""What LiteLLM's SDK finds on a server that it takes for OpenAI's; run in an environment of its own."""

import json
import os
from typing import Any

import litellm

MODEL = f"openai/{os.environ['MODEL']}"
MESSAGES: Any = [{"role": "user", "content": "why do leaves fall?"}]
GREEDY: Any = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 12, "max_retries": 0}


def raise_of(**changes: Any) -> Any:
    try:
        litellm.completion(**{**GREEDY, **changes})
    except Exception as error:
        return [type(error).__name__, getattr(error, "status_code", None)]


whole = litellm.completion(**GREEDY)
parts = list(litellm.completion(**GREEDY, stream=True))
ranked = litellm.rerank(
    model="jina_ai/helpful",
    query="why?",
    documents=["the wind is lazy", "no", "leaves fall"],
    top_n=2,
    api_base=os.environ["OPENAI_BASE_URL"].removesuffix("/v1") + "/v1/rerank",
    api_key=os.environ["OPENAI_API_KEY"],
)
print(
    json.dumps(
        {
            "whole": whole.choices[0].message.content,
            "streamed": "".join(part.choices[0].delta.content or "" for part in parts),
            "ranked": [[each["index"], each["relevance_score"]] for each in ranked.results],
            "errors": {
                "too long": raise_of(messages=[{"role": "user", "content": "a b " * 9000}]),
                "no such model": raise_of(model="openai/gpt-none"),
                "an unknown key": raise_of(api_key="unknown"),
                "a wrong value": raise_of(temperature=-1),
            },
        }
    )
)
