"""What every body stands on: text that is Unicode, numbers that are finite, messages, errors."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

MAX_ITEMS = 4096
MAX_CANDIDATES = 256
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


Text = Annotated[str, AfterValidator(_encodable)]
Weight = Annotated[float, AfterValidator(check_finite)]
Preferences = dict[Text, Weight]
Role = Literal["system", "user", "assistant", "tool"]


class Request(BaseModel):
    """Base of native requests: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Reply(BaseModel):
    """Base of replies: unknown fields are kept."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class TextPart(Request):
    """OpenAI's content part; only text is read."""

    type: Literal["text"]
    text: Text


class Message(Request):
    """One turn. ``content`` may be OpenAI's list of text parts; it is joined."""

    role: Role
    content: Text
    name: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _join_parts(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("content"), list):
            try:
                parts = [TextPart.model_validate(part) for part in value["content"]]
            except ValidationError:
                raise ValueError('only text is read: a part of content is {"type": "text", "text": "..."}') from None
            return {**value, "content": "".join(part.text for part in parts)}
        return value

    def plain(self) -> dict[str, str]:
        """``{role, content}``, what a chat template reads."""
        return {"role": self.role, "content": self.content}


Prompt = Text | list[Message]
Candidate = Text | list[Message]


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
