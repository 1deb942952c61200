"""The body of ``POST /v1/responses``: OpenAI's fields, read as those of a chat."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, PrivateAttr, ValidationError, model_validator

from tureen.errors import TureenError, Unprocessable
from tureen.validation import explain_errors
from tureen.wire import MAX_MESSAGES, ChatRequest, GenerationRequest, Many, Request, TemplateRequest, Text
from tureen_serve.api.response_items import ResponseItem, read_items
from tureen_serve.api.text_bodies import ChatBody, drop_neutral_fields

LOGPROBS = "message.output_text.logprobs"
Included = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
STORE = "no store of responses is configured; send the earlier turns in `input`"
# field: (values that ask for nothing, why other values are refused)
RESPONSE: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "background": ((False,), "responses are not computed in the background; leave it out"),
    "context_management": (([],), "the context is not compacted; leave it out, or send `truncation: auto`"),
    "conversation": ((), STORE),
    "moderation": ((), "moderation is not supported; leave it out"),
    "previous_response_id": ((), STORE),
    "prompt": ((), "no stored prompts are configured; send `instructions` and `input`"),
    "prompt_logprobs": ((), "a response has no place for them; use /v1/chat/completions"),
    "response_format": ((), "is called `text.format` here"),
}
# field of a chat → field of a response, the longer names first
RENAMED = {
    "messages": "input",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "tool_choice.function": "tool_choice",
    "tool_choice.allowed_tools": "tool_choice",
}


class ReasoningOptions(Request):
    """OpenAI's ``reasoning``. Thoughts are told as they are, so a summary is none."""

    effort: Text | None = None
    summary: Any = None
    generate_summary: Any = None
    context: Any = None
    mode: Any = None


class TextOptions(Request):
    """OpenAI's ``text``: the format of the answer, and its length."""

    format: dict[str, Any] | None = None
    verbosity: Text | None = None


class ResponseBody(GenerationRequest, TemplateRequest):
    """The body of ``POST /v1/responses``: OpenAI's fields, and those that steer a policy.

    Attributes:
        input: the user's text, or items: messages, reasoning, ``function_call`` and ``function_call_output``.
        tools: functions, flat as OpenAI's Responses API has them, or nested as its chats have them.
        max_tool_calls: bounds built-in tools, and there are none.
        truncation: ``auto`` is ``truncate: true``.
        store: responses are never stored.
    """

    input: Text | Annotated[list[ResponseItem], Many(MAX_MESSAGES, least=1)]
    instructions: Text | None = None
    max_output_tokens: PositiveInt | None = None
    include: Annotated[list[Included], Many(64)] = []
    max_tool_calls: PositiveInt | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Text | None = None
    reasoning: ReasoningOptions | None = None
    safety_identifier: Text | None = None
    service_tier: Text | None = None
    store: bool | None = None
    text: TextOptions = TextOptions()
    tool_choice: Text | dict[str, Any] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    _chat: ChatBody = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _openai(cls, body: Any) -> Any:
        return drop_neutral_fields(body, RESPONSE) if isinstance(body, dict) else body

    @model_validator(mode="after")
    def _read_chat(self) -> "ResponseBody":
        several = {
            "n": self.n > 1,
            "preferences": isinstance(self.preferences, list),
            "desired_rewards": isinstance(self.desired_rewards, list),
            "candidates.select": self.candidates is not None and self.candidates.select == "all",
        }
        for param in (name for name, wanted in several.items() if wanted):
            message = f"`{param}` asks for several answers, and a response has one; use /v1/chat/completions"
            raise Unprocessable(message, param=param, code="unsupported_parameter")
        given = {name: value for name, value in self._write_chat().items() if value is not None}
        try:
            self._chat = ChatBody.model_validate(given)
        except ValidationError as error:
            raise name_field(explain_errors(error.errors(include_url=False), given)) from None
        except TureenError as error:
            raise name_field(error) from None
        return self

    def _write_chat(self) -> dict[str, Any]:
        shared = self.model_dump(include=SHARED, exclude_unset=True)
        with_logprobs = self.top_logprobs is not None or LOGPROBS in self.include
        return {
            **shared,
            "messages": self._write_messages(),
            "max_completion_tokens": self.max_output_tokens,
            "stream_options": {"include_usage": True} if self.stream else None,
            "logprobs": with_logprobs or None,
            "reasoning_effort": self.reasoning.effort if self.reasoning else None,
            "response_format": _write_format(self.text.format),
            "verbosity": self.text.verbosity,
            "tool_choice": _write_choice(self.tool_choice),
            "truncate": self.truncate or self.truncation == "auto",
        }

    def _write_messages(self) -> list[dict[str, Any]]:
        spoken = self.input
        turns: list[Any] = (
            [{"role": "user", "content": spoken}] if isinstance(spoken, str) else read_items(spoken, "input")
        )
        if not turns:
            raise Unprocessable("the input has no message; send at least one", param="input")
        return [{"role": "system", "content": self.instructions}, *turns] if self.instructions else turns

    @property
    def chat(self) -> ChatBody:
        """The body of the chat that this response is."""
        return self._chat.model_copy(update={"priority": self.priority})

    def list_ignored(self, names: Sequence[str]) -> list[str]:
        """List the fields without an effect, by those that the chat has; ``metadata`` comes back in the reply."""
        own = ["max_tool_calls"] if self.max_tool_calls is not None else []
        return sorted([*own, *(RENAMED.get(name, name) for name in names if name != "metadata")])


SHARED = (ChatRequest.model_fields.keys() & ResponseBody.model_fields.keys()) - {"stream_options", "tool_choice"}


def name_field(error: TureenError) -> TureenError:
    """Return the same error of a chat with the field's name in the body of a response."""
    old = next((each for each in RENAMED if _names(error.param, each)), None)
    if old is None:
        return error
    new = RENAMED[old]
    rest = "" if new == "input" else (error.param or "")[len(old) :]
    told = error.message.replace(f"`{old}", f"`{new}")
    told = told.replace(f"{error.param}:", f"{new}{rest}:", 1) if told.startswith(f"{error.param}:") else told
    return type(error)(told, param=new + rest, code=error.code, retry_after=error.retry_after)


def _names(param: str | None, field: str) -> bool:
    return param is not None and (param == field or param.startswith((f"{field}.", f"{field}[")))


def _write_format(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    schema = {name: value for name, value in given.items() if name != "type"}
    return {"type": given.get("type"), **({"json_schema": schema} if schema else {})}


def _write_choice(given: str | Mapping[str, Any] | None) -> Any:
    """Write ``tool_choice`` as a chat has it. OpenAI's Responses API names functions flat."""
    if not isinstance(given, Mapping):
        return given
    if given.get("type") == "allowed_tools" and "allowed_tools" not in given:
        tools = given.get("tools")
        nested = [_nest_name(each) for each in tools] if isinstance(tools, list) else tools
        return {"type": "allowed_tools", "allowed_tools": {"mode": given.get("mode"), "tools": nested}}
    return _nest_name(given)


def _nest_name(given: Any) -> Any:
    if isinstance(given, Mapping) and given.get("type") == "function" and "name" in given:
        return {"type": "function", "function": {"name": given["name"]}}
    return given
