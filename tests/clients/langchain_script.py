"""What LangChain and Instructor find on a server that they take for OpenAI's; run in an environment of their own."""

import json
import os
from typing import Any, Literal

import instructor
import openai
from langchain_core.exceptions import ContextOverflowError
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict

MODEL = os.environ["MODEL"]
QUESTION = "why do leaves fall?"
SHAPING: Any = {"temperature": 0, "max_tokens": 2000}


class Answer(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid")  # the random model would go on with other fields

    verdict: Literal["yes", "no"]
    size: Literal[1, 2]


def find_city(city: Literal["Oslo", "Rome"]) -> str:
    """Find a city."""
    return city


def chat(model: Any) -> Any:
    whole = model.invoke(QUESTION)
    parts = list(model.stream(QUESTION))
    return {"whole": whole.text, "streamed": "".join(part.text for part in parts), "usage": whole.usage_metadata}


def run_langchain() -> Any:
    greedy = ChatOpenAI(model=MODEL, temperature=0, max_tokens=12, max_retries=0)
    shaping = ChatOpenAI(model=MODEL, **SHAPING, max_retries=0)
    responses = ChatOpenAI(model=MODEL, temperature=0, max_tokens=12, max_retries=0, use_responses_api=True)
    tools = shaping.bind_tools([find_city], tool_choice="required", parallel_tool_calls=False, strict=True)
    methods: Any = ("json_schema", "function_calling")
    try:
        greedy.invoke("a b " * 9000)
        raised = "none"
    except ContextOverflowError as error:
        raised = str(isinstance(error, openai.BadRequestError))
    return {
        "chat": chat(greedy),
        "responses": chat(responses),
        "calls": [[each["name"], each["args"]] for each in tools.invoke(QUESTION).tool_calls],
        "structures": [
            shaping.with_structured_output(Answer, method=each).invoke(QUESTION).model_dump() for each in methods
        ],
        "too long": raised,
    }


def run_instructor() -> Any:
    found = {}
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(openai.OpenAI(max_retries=0, timeout=120), mode=mode)
        messages: Any = [{"role": "user", "content": QUESTION}]
        asked: Any = {"model": MODEL, "messages": messages, "response_model": Answer, "max_retries": 0, **SHAPING}
        found[mode.name] = client.chat.completions.create(**asked).model_dump()
    return found


print(json.dumps({"langchain": run_langchain(), "instructor": run_instructor()}))
