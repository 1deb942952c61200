"""OpenAI's whole field set: what asks for nothing is dropped, what we do not do is refused by name."""

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from tureen.errors import Unprocessable
from tureen.wire import ChatRequest, CompletionRequest

ANY = object()
# field: (values that ask for nothing beyond what we do, why others are refused)
CHAT: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "audio": ((), "no loaded policy speaks; leave it out"),
    "function_call": (("none", "auto"), "no loaded policy calls functions; leave it out"),
    "functions": (([],), "no loaded policy calls functions; leave it out"),
    "modalities": ((["text"],), "only text is made; leave it out"),
    "moderation": ((), "nothing is moderated here; leave it out"),
    "prediction": ((), "predicted output is not used; leave it out"),
    "prompt_cache_options": ((ANY,), ""),
    "prompt_cache_retention": ((ANY,), ""),
    "reasoning_effort": (("none",), "no loaded policy reasons apart from its answer; leave it out"),
    "response_format": (({"type": "text"},), "only plain text is made, no structured output; leave it out"),
    "service_tier": (("auto", "default"), "there is one tier; leave it out and send `priority`"),
    "store": ((False,), "nothing is stored here; leave it out"),
    "tool_choice": (("none", "auto"), "no loaded policy calls tools; leave it out"),
    "tools": (([],), "no loaded policy calls tools; leave it out"),
    "verbosity": (("medium",), "ask for it in the messages, or steer by `preferences`"),
    "web_search_options": ((), "nothing is searched for; leave it out"),
}
COMPLETION: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "best_of": ((1,), "candidates are chosen by reward here; send `candidates`"),
    "echo": ((False,), "the prompt is not repeated; leave it out"),
    "suffix": (("",), "text is continued, not filled in; leave it out"),
}
MESSAGE: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "annotations": ((ANY,), ""),
    "audio": ((), "no loaded policy hears; send text"),
    "function_call": ((), "no loaded policy reads function calls; send text"),
    "refusal": (("",), "send the refusal as `content`"),
    "tool_call_id": ((ANY,), ""),
    "tool_calls": (([],), "no loaded policy reads tool calls; send text"),
}


class ChatBody(ChatRequest):
    """``POST /v1/chat/completions``: OpenAI's fields and ours."""

    @model_validator(mode="before")
    @classmethod
    def _openai(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        body = drop_neutral_fields(body, CHAT)
        if isinstance(body.get("messages"), list):
            body["messages"] = [_message(each, index) for index, each in enumerate(body["messages"])]
        return body


class CompletionBody(CompletionRequest):
    """``POST /v1/completions``: text in, text out, no chat template."""

    @model_validator(mode="before")
    @classmethod
    def _openai(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        prompt = body.get("prompt")
        if isinstance(prompt, list) and prompt and not any(isinstance(each, str) for each in prompt):
            raise Unprocessable("token ids are not read, since they fit one tokenizer only; send text", param="prompt")
        return drop_neutral_fields(body, COMPLETION)


def drop_neutral_fields(
    body: Mapping[str, Any], table: Mapping[str, tuple[tuple[Any, ...], str]], prefix: str = ""
) -> dict[str, Any]:
    """The body without its nulls and without what asks for nothing.

    Raises:
        Unprocessable: a field of the table asks for something.
    """
    kept = {}
    for name, value in body.items():
        neutral, reason = table.get(name, (None, ""))
        if neutral is not None and value is not None and value not in neutral and ANY not in neutral:
            raise Unprocessable(f"`{name}`: {reason}", param=f"{prefix}{name}", code="unsupported_parameter")
        if neutral is None and value is not None:
            kept[name] = value
    return kept


def _message(message: Any, index: int) -> Any:
    if not isinstance(message, dict):
        return message
    kept = drop_neutral_fields(message, MESSAGE, f"messages[{index}].")
    if kept.get("role") == "developer":
        kept["role"] = "system"
    return kept
