"""What the openai SDK finds on a server that it takes for OpenAI's; run in an environment of its own."""

import io
import json
import os
import time
from collections.abc import Callable
from typing import Any, Literal

import openai
from pydantic import BaseModel

MODEL = os.environ["MODEL"]
MESSAGES: Any = [{"role": "user", "content": "why do leaves fall?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "find_city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
GREEDY: Any = {"temperature": 0, "max_completion_tokens": 12}
FORCED: Any = {"tool_choice": "required", "parallel_tool_calls": False, "temperature": 0}


class Answer(BaseModel):
    verdict: Literal["yes", "no"]
    size: Literal[1, 2]


def chat(client: openai.OpenAI) -> Any:
    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES, logprobs=True, top_logprobs=2, **GREEDY)
    options: Any = {"include_usage": True}
    parts = list(
        client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, stream_options=options, **GREEDY)
    )
    return {
        "whole": whole.choices[0].message.content,
        "logprobs": [each.logprob for each in whole.choices[0].logprobs.content],
        "streamed": "".join(part.choices[0].delta.content or "" for part in parts if part.choices),
        "usage": [whole.usage.to_dict(), parts[-1].usage.to_dict()],
        "preferences": whole.to_dict()["preferences"],
    }


def tools(client: openai.OpenAI) -> Any:
    forced: Any = {"model": MODEL, "messages": MESSAGES, "tools": [TOOL], **FORCED}
    whole = client.chat.completions.create(**forced)
    (call,) = whole.choices[0].message.tool_calls or []
    with client.chat.completions.stream(**forced) as stream:
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls or []
    answered = client.chat.completions.create(
        model=MODEL,
        messages=[*MESSAGES, whole.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}],
        tools=[TOOL],
        tool_choice="none",
        **GREEDY,
    )
    return {
        "finish": whole.choices[0].finish_reason,
        "calls": [[each.function.name, json.loads(each.function.arguments)] for each in (call, streamed)],
        "answered": answered.choices[0].finish_reason,
    }


def structures(client: openai.OpenAI) -> Any:
    found = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Answer, temperature=0)
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, response_format=Answer, temperature=0
    ) as stream:
        streamed = stream.get_final_completion().choices[0].message.parsed
    asked: Any = {"model": MODEL, "input": "why?", "text_format": Answer, "temperature": 0}
    response = client.responses.parse(**asked)
    with client.responses.stream(**asked) as events:
        gathered = events.get_final_response()
    read = (found.choices[0].message.parsed, streamed, response.output_parsed, gathered.output_parsed)
    return [each and each.model_dump() for each in read]


def responses(client: openai.OpenAI) -> Any:
    asked: Any = {"model": MODEL, "input": "why do leaves fall?", "temperature": 0, "max_output_tokens": 12}
    whole = client.responses.create(**asked)
    parts = list(client.responses.create(stream=True, **asked))
    flat: Any = {"type": "function", **TOOL["function"], "strict": True}
    called = client.responses.create(
        model=MODEL,
        input=MESSAGES[0]["content"],
        tools=[flat],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    )
    return {
        "whole": whole.output_text,
        "streamed": "".join(each.delta for each in parts if each.type == "response.output_text.delta"),
        "events": [parts[0].type, parts[-1].type],
        "calls": [[each.name, json.loads(each.arguments)] for each in called.output if each.type == "function_call"],
    }


def completions(client: openai.OpenAI) -> Any:
    asked: Any = {"model": MODEL, "prompt": "why do leaves", "max_tokens": 4, "temperature": 0}
    read = client.completions.create(**{**asked, "max_tokens": 0, "echo": True, "logprobs": 1})
    whole = client.completions.create(**asked)
    streamed = "".join(each.choices[0].text for each in client.completions.create(stream=True, **asked))
    return {"read": read.choices[0].logprobs.to_dict(), "whole": whole.choices[0].text, "streamed": streamed}


def models(client: openai.OpenAI) -> Any:
    return {"list": [each.id for each in client.models.list()], "mix": client.models.retrieve(MODEL).to_dict()}


def batches(client: openai.OpenAI) -> Any:
    body = {"model": MODEL, "messages": MESSAGES, **GREEDY}
    bodies = {"good": body, "bad": {**body, "temperature": "hot"}}
    lines = [
        json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": each})
        for name, each in bodies.items()
    ]
    content = io.BytesIO("\n".join(lines).encode())
    file = client.files.create(file=("lines.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status in ("validating", "in_progress", "finalizing"):
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    written = [client.files.content(each).text for each in (batch.output_file_id, batch.error_file_id) if each]
    listed = [
        batch.id in [each.id for each in client.batches.list()],
        file.id in [each.id for each in client.files.list()],
    ]
    client.files.delete(file.id)
    return {
        "status": batch.status,
        "counts": batch.request_counts.to_dict(),  # type: ignore[union-attr]
        "lines": [json.loads(line) for text in written for line in text.splitlines()],
        "listed": listed,
    }


def errors(client: openai.OpenAI) -> Any:
    def ask(by: openai.OpenAI = client, **changes: Any) -> Any:
        return by.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, **GREEDY, **changes})

    stranger, spent = client.with_options(api_key="unknown"), client.with_options(api_key=os.environ["SPENT"])
    tries: dict[str, Callable[[], Any]] = {
        "a wrong value": lambda: ask(temperature="hot"),
        "too long": lambda: ask(messages=[{"role": "user", "content": "a b " * 9000}]),
        "no such model": lambda: ask(model="gpt-none"),
        "no such expert": lambda: ask(model="tiny:harmless=1"),
        "a reward's name": lambda: ask(model="helpful"),
        "no such card": lambda: client.models.retrieve("gpt-none"),
        "no such file": lambda: client.files.retrieve("file-none"),
        "no such route": lambda: client.moderations.create(input="hi"),
        "an unknown key": lambda: ask(stranger),
        "a spent quota": lambda: [ask(spent), ask(spent)],
        "no stored response": lambda: client.responses.create(model=MODEL, input="hi", previous_response_id="resp_1"),
        "embeddings": lambda: client.embeddings.create(model=MODEL, input="hi"),
    }
    found: dict[str, Any] = {}
    for name, run in tries.items():
        try:
            run()
            found[name] = ["none"]
        except openai.APIStatusError as error:
            found[name] = [type(error).__name__, error.status_code, error.code]
    return found


with openai.OpenAI(max_retries=0, timeout=120) as sdk:
    parts = (chat, tools, structures, responses, completions, models, batches, errors)
    print(json.dumps({each.__name__: each(sdk) for each in parts}))
