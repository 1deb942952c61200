"""What every body stands on: text that is Unicode, numbers that are finite, messages, errors."""

import math
from operator import not_
from typing import Annotated, Any, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from tureen.messages import Role, find_unknown_fields, read_message
from tureen.tool_calls import check_texts, read_tools

MAX_ITEMS = 4096
MAX_CANDIDATES = 256
MAX_TEXTS = 2**14  # answers, steps or documents of one request
MAX_MESSAGES = 4096  # of one conversation
MAX_NAMES = 1024  # of rewards, tools and calls of tools
TIMEOUT_HEADER = "x-request-timeout-ms"


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds a lone surrogate at character {error.start}, which is not Unicode") from None
    return text


def check_finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


class Many:
    """Bounds a list before its values are looked at, and stops at the first value that is wrong.

        items: Annotated[list[ScoreItem], Many(4096)]

    Args:
        most: the largest number of values; without it only the size of the body bounds them.
        least: the smallest number of values.
    """

    def __init__(self, most: int | None = None, least: int = 0) -> None:
        self._most = most
        self._least = least

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        listed: Any = handler(source)
        listed["fail_fast"] = True
        if self._least:
            listed["min_length"] = self._least
        if self._most is None:
            return cast(CoreSchema, listed)
        listed["max_length"] = self._most
        return core_schema.no_info_before_validator_function(self._count, listed)

    def _count(self, value: Any) -> Any:
        if self._most is not None and isinstance(value, list) and len(value) > self._most:
            told = {"field_type": "List", "max_length": self._most, "actual_length": len(value)}
            raise PydanticKnownError("too_long", told)
        return value


Text = Annotated[str, AfterValidator(_encodable)]
Normalised = Annotated[list[str], Field(exclude_if=not_)]  # written only where something was done
Weight = Annotated[float, AfterValidator(check_finite)]
Preferences = dict[Text, Weight]


class Request(BaseModel):
    """Base of native requests: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Reply(BaseModel):
    """Base of replies: unknown fields are kept, and numbers must be finite, since JSON has no others."""

    model_config = ConfigDict(extra="allow", protected_namespaces=(), allow_inf_nan=False)


class Message(Request):
    """A message of a conversation, in the canonical form of :mod:`tureen.messages`.

    Every spelling that :func:`tureen.messages.read_message` reads is taken: lists of text parts, null fields, the role
    ``developer``, ``reasoning`` or ``thinking`` for ``reasoning_content``, and arguments of tool calls as objects.
    """

    role: Role
    content: Text | None = None
    name: Text | None = None
    reasoning_content: Text | None = None
    tool_calls: Annotated[list[dict[str, Any]], Many(MAX_NAMES)] | None = None
    tool_call_id: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _canonical(cls, value: Any) -> Any:
        return {**find_unknown_fields(value), **read_message(value, strict=False)} if isinstance(value, dict) else value

    @property
    def text(self) -> str:
        """The content; empty where the message only calls tools or only thinks."""
        return self.content or ""

    def plain(self) -> dict[str, Any]:
        """The message as a dict: ``role``, ``content``, and those of the other fields that hold something."""
        held = self.model_dump(include=FIELDS - {"role", "content"}, exclude_none=True)
        return {"role": self.role, "content": self.content, **held}


FIELDS = {"role", "content", "name", "reasoning_content", "tool_calls", "tool_call_id"}


class TemplateRequest(Request):
    """What a chat template is given beside the messages.

    Attributes:
        tools: descriptions of functions in OpenAI's form.
        chat_template_kwargs: variables of the template, such as ``enable_thinking``.
    """

    tools: Annotated[list[dict[str, Any]], Many(MAX_NAMES)] | None = None
    chat_template_kwargs: dict[Text, Any] | None = None

    @field_validator("tools", mode="before")
    @classmethod
    def _read_tools(cls, value: Any) -> Any:
        return read_tools(value) or None

    @field_validator("chat_template_kwargs")
    @classmethod
    def _check_texts(cls, value: Any) -> Any:
        check_texts(value)
        return value


Conversation = Annotated[list[Message], Many(MAX_MESSAGES)]
Prompt = Text | Conversation
Candidate = Text | Conversation


class ErrorDetail(Reply):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(Reply):
    """The body of every refusal."""

    error: ErrorDetail
    request_id: str | None = None


class Usage(Reply):
    """Tokens read and made."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
