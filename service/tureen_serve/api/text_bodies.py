"""Accept all fields of OpenAI's requests: a field that asks for nothing is dropped, an unsupported one is refused."""

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from tureen.errors import InvalidRequest, Unprocessable
from tureen.message_fields import BadMessage
from tureen.messages import find_unknown_fields, read_message
from tureen.wire import ChatRequest, CompletionRequest

# field: (values that ask for nothing, why other values are refused)
CHAT: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "audio": ((), "audio output is not supported; leave it out"),
    "function_call": (("none", "auto"), "function calls are not supported; leave it out"),
    "functions": (([],), "function calls are not supported; leave it out"),
    "modalities": ((["text"],), "only text output is supported; leave it out"),
    "moderation": ((), "moderation is not supported; leave it out"),
    "web_search_options": ((), "web search is not supported; leave it out"),
}
GUIDED = {f"guided_{name}": name for name in ("json", "regex", "choice", "grammar", "whitespace_pattern")}
COMPLETION: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "suffix": (("",), "text before a suffix is not supported; leave it out"),
}


class ChatBody(ChatRequest):
    """The body of ``POST /v1/chat/completions``: OpenAI's fields and ours."""

    @model_validator(mode="before")
    @classmethod
    def _openai(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        body = _rename_guided(drop_neutral_fields(body, CHAT))
        if isinstance(body.get("messages"), list):
            body["messages"] = [_message(each, index) for index, each in enumerate(body["messages"])]
        return body


class CompletionBody(CompletionRequest):
    """The body of ``POST /v1/completions``: prompts that are continued without a chat template."""

    @model_validator(mode="before")
    @classmethod
    def _openai(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        if body.get("best_of") in (1, body.get("n")):  # all that are written are sent
            body = {**body, "best_of": None}
        return _rename_guided(drop_neutral_fields(body, COMPLETION))


def drop_neutral_fields(
    body: Mapping[str, Any], table: Mapping[str, tuple[tuple[Any, ...], str]], prefix: str = ""
) -> dict[str, Any]:
    """Return the body without nulls and without the fields of the table.

    Args:
        table: field → (values that ask for nothing, why other values are refused).
        prefix: for the ``param`` of an error.

    Raises:
        Unprocessable: a field of the table has another value.
    """
    kept = {}
    for name, value in body.items():
        neutral, reason = table.get(name, (None, ""))
        if neutral is not None and value is not None and value not in neutral:
            raise Unprocessable(f"`{name}`: {reason}", param=f"{prefix}{name}", code="unsupported_parameter")
        if neutral is None and value is not None:
            kept[name] = value
    return kept


def _rename_guided(body: dict[str, Any]) -> dict[str, Any]:
    """Write vLLM's older fields ``guided_json`` and so on as ``structured_outputs``."""
    given = {new: body.pop(old) for old, new in GUIDED.items() if old in body}
    body.pop("guided_decoding_backend", None)
    if not given:
        return body
    if "structured_outputs" in body:
        old = next(old for old, new in GUIDED.items() if new in given)
        raise InvalidRequest(f"`{old}` is part of `structured_outputs`; send one of the two fields", param=old)
    return {**body, "structured_outputs": given}


def _message(message: Any, index: int) -> Any:
    """A message in its canonical form. What is no object at all is left to the validation."""
    if not isinstance(message, dict):
        return message
    try:
        return {**find_unknown_fields(message), **read_message(message, strict=False)}
    except BadMessage as error:
        raise Unprocessable(error.problem, param=f"messages[{index}].{error.field}".removesuffix(".")) from None
