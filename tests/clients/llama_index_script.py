"""llama-index before a server: prints what it read as one JSON."""

import asyncio
import json
import os
from typing import Any, Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

PROMPT = "why do leaves fall?"
MESSAGES = [ChatMessage(role="user", content=PROMPT)]
CONNECTION: Any = {
    "model": os.environ["MODEL"],
    "api_base": os.environ["OPENAI_BASE_URL"],
    "api_key": os.environ["OPENAI_API_KEY"],
    "context_window": 8192,
    "max_retries": 0,
}


class Place(BaseModel):
    """A city."""

    city: Literal["Oslo", "Rome"]


def weather(city: Literal["Oslo", "Rome"]) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def main() -> None:
    chats = OpenAILike(**CONNECTION, is_chat_model=True, temperature=0, max_tokens=16)
    plain = OpenAILike(**CONNECTION, temperature=0, max_tokens=16)
    shaping = {"is_chat_model": True, "temperature": 1, "additional_kwargs": {"seed": 1}}
    shapes = OpenAILike(**CONNECTION, **shaping, should_use_structured_outputs=True)
    tools = OpenAILike(**CONNECTION, **shaping, is_function_calling_model=True)
    called = tools.predict_and_call
    place = shapes.structured_predict(Place, PromptTemplate("Which city? {hint}"), hint="north")
    found = {
        "chat": chats.chat(MESSAGES).message.content,
        "stream": "".join(each.delta or "" for each in chats.stream_chat(MESSAGES)),
        "later": asyncio.run(chats.achat(MESSAGES)).message.content,
        "text": plain.complete(PROMPT).text,
        "pieces": "".join(each.delta or "" for each in plain.stream_complete(PROMPT)),
        "place": place.model_dump(),
        "called": called([FunctionTool.from_defaults(weather)], user_msg=PROMPT, tool_required=True).response,
    }
    try:
        chats.chat([ChatMessage(role="user", content="a b " * 9000)])
    except Exception as error:
        found["fault"] = [type(error).__name__, getattr(error, "code", None)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
