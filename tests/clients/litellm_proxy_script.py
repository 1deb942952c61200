"""What the openai SDK finds behind LiteLLM's proxy; run in the proxy's environment. Prints one JSON."""

import io
import json
import os
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai

ADA, TIM = os.environ["ADA"], os.environ["TIM"]  # keys of the proxy; the budget of the second is nearly nothing
MESSAGES: Any = [{"role": "user", "content": "why do leaves fall?"}]
LONG: Any = [{"role": "user", "content": "a b " * 300}]
GREEDY: Any = {"temperature": 0, "max_tokens": 8}
MIX = "smollm2:literature=0.5+academy=0.5"
NAMES = ("smollm2", "bookish", "playful", f"tureen/{MIX}")


def write(client: openai.OpenAI, model: str, messages: Any = MESSAGES, **more: Any) -> Any:
    """The text, the model that wrote it, and its weights, which the proxy keeps with the choice."""
    found = client.chat.completions.create(model=model, messages=messages, **GREEDY, **more)
    choice = found.choices[0].to_dict()
    return [found.choices[0].message.content, found.model, choice["provider_specific_fields"]["preferences"]]


def stream(client: openai.OpenAI, model: str, messages: Any = MESSAGES) -> str:
    parts = client.chat.completions.create(model=model, messages=messages, stream=True, **GREEDY)
    return "".join(part.choices[0].delta.content or "" for part in parts if part.choices)


def rank() -> Any:
    body = {"model": "helpful", "query": "why?", "documents": ["the wind is lazy", "no", "leaves fall"], "top_n": 2}
    url, key = os.environ["OPENAI_BASE_URL"], {"authorization": f"Bearer {ADA}"}
    reply = httpx.post(f"{url}/rerank", json=body, headers=key, timeout=120).raise_for_status().json()
    return [[each["index"], each["relevance_score"]] for each in reply["results"]]


def run_batch(client: openai.OpenAI) -> Any:
    """The names in its lines are the server's, not the proxy's."""
    provider: Any = {"extra_body": {"custom_llm_provider": "openai"}}
    lines = [
        {"custom_id": model, "method": "POST", "url": "/v1/chat/completions", "body": {"model": model, **GREEDY}}
        for model in (MIX, "smollm2:harmless=1")
    ]
    for line in lines:
        line["body"]["messages"] = MESSAGES  # type: ignore[index]
    content = io.BytesIO("\n".join(map(json.dumps, lines)).encode())
    file = client.files.create(file=("lines.jsonl", content), purpose="batch", **provider)
    asked: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = client.batches.create(input_file_id=file.id, **asked, **provider)
    while batch.status in ("validating", "in_progress", "finalizing"):
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    (good,) = map(json.loads, client.files.content(str(batch.output_file_id)).text.splitlines())
    counts = batch.request_counts
    assert counts is not None
    text = good["response"]["body"]["choices"][0]["message"]["content"]
    return {"status": batch.status, "counts": [counts.completed, counts.failed], "text": text}


def errors(client: openai.OpenAI) -> Any:
    spending = client.with_options(api_key=TIM)
    tries: dict[str, Callable[[], Any]] = {
        "an unknown key": lambda: write(client.with_options(api_key="sk-nobody"), "smollm2"),
        "no such model": lambda: write(client, "gpt-none"),
        "no such expert": lambda: write(client, "tureen/smollm2:harmless=1"),
        "too long for a wildcard": lambda: write(client, "tureen/smollm2", LONG),
        "a spent budget": lambda: spend(spending),
    }
    found: dict[str, Any] = {}
    for name, run in tries.items():
        try:
            run()
            found[name] = ["none"]
        except openai.APIStatusError as error:
            found[name] = [type(error).__name__, error.status_code, error.message]
    return found


def spend(client: openai.OpenAI) -> None:
    """Write until the budget is spent; the proxy counts what a text costs after it has answered."""
    for _ in range(100):
        write(client, "bookish")
        time.sleep(0.1)


def main() -> None:
    with openai.OpenAI(api_key=ADA, max_retries=0, timeout=120) as client:
        found = {
            "models": [model.id for model in client.models.list()],
            "texts": {name: write(client, name) for name in NAMES},
            "preferences": write(client, "smollm2", extra_body={"preferences": {"academy": 1}}),
            "streamed": stream(client, "bookish"),
            "longer": write(client, "smollm2", LONG),
            "longer streamed": stream(client, "bookish", LONG),
            "response": client.responses.create(
                model="bookish", input=MESSAGES[0]["content"], temperature=0, max_output_tokens=16
            ).output_text,
            "ranked": rank(),
            "batch": run_batch(client),
            "errors": errors(client),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
