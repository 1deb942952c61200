"""What the OpenAI routes answer, with our additions, as the client reads it.

Reading is lenient: fields that are not named here are kept, and what OpenAI may leave out may be missing.
"""

from typing import Any, Literal

from tureen.wire import Reply, Score, Usage


class SteeringFields(Reply):
    """Our additions to a reply and to each of its choices.

    Attributes:
        preferences: the weights as they were applied; a list of them on the reply of a sweep.
        rewards: objective → raw and calibrated reward of the text, when candidates were scored.
        reward: those rewards weighed by the preferences.
    """

    preferences: dict[str, float] | list[dict[str, float]] | None = None
    rewards: dict[str, Score] | None = None
    reward: float | None = None


class GeneratedReply(SteeringFields):
    """What every reply and every chunk of a stream carries.

    Attributes:
        steering: the method that applied the preferences, and its settings.
        experts: the versions of the experts that were mixed.
    """

    id: str = ""
    created: int = 0
    model: str = ""
    system_fingerprint: str | None = None
    usage: Usage | None = None
    steering: dict[str, Any] | None = None
    experts: dict[str, str] | None = None


class Choice(SteeringFields):
    """What every choice carries; ``logprobs`` is OpenAI's object, unread."""

    index: int = 0
    finish_reason: str | None = None
    logprobs: Any = None


class ChatMessage(Reply):
    """A message, or in a stream the next piece of one."""

    role: str | None = None
    content: str | None = None


class ChatChoice(Choice):
    """One answer."""

    message: ChatMessage

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.message.content or ""


class ChatReply(GeneratedReply):
    """The answer of ``/v1/chat/completions``: one choice per ``n``, or per map of a sweep."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text if self.choices else ""


class ChatChunkChoice(Choice):
    """The next piece of one answer."""

    delta: ChatMessage

    @property
    def text(self) -> str:
        """The piece's text."""
        return self.delta.content or ""


class ChatChunk(GeneratedReply):
    """One event of a chat stream; the last may carry the usage and no choice."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatChunkChoice]

    @property
    def text(self) -> str:
        """The first choice's piece of text."""
        return self.choices[0].text if self.choices else ""


class CompletionChoice(Choice):
    """One continuation, or in a stream the next piece of one."""

    text: str = ""


class CompletionReply(GeneratedReply):
    """The answer of ``/v1/completions``, and each event of its stream."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text if self.choices else ""
