"""The replies of the OpenAI routes as the client parses them: OpenAI's fields and Tureen's additions.

Unknown fields are kept. Fields that OpenAI's API may omit have defaults.
"""

from typing import Any, Literal

from tureen.wire import Reply, Score, Usage


class SteeringFields(Reply):
    """Tureen's additions to a reply and to each of its choices.

    Attributes:
        preferences: the applied weights by objective; for the reply of a sweep a list of them.
        desired_rewards: of a choice by a policy that is steered by reward tags: the normalised rewards that its prompt
            asked for.
        sentences: of a choice by a policy that is steered by words: what its prompt said.
        rewards: the raw and calibrated rewards of the text by objective, if ``candidates`` was requested.
        reward: the sum of the calibrated rewards, weighted by the preferences. One reward without a calibration counts
            raw.
    """

    preferences: dict[str, float] | list[dict[str, float]] | None = None
    desired_rewards: dict[str, float] | None = None
    sentences: list[str] | None = None
    rewards: dict[str, Score] | None = None
    reward: float | None = None


class GeneratedReply(SteeringFields):
    """The fields of every reply, and of every chunk of a stream.

    Attributes:
        usage: the numbers of tokens.
        steering: the method that applied the preferences, and its settings.
        experts: the versions of the souped experts, by name.
    """

    id: str = ""
    created: int = 0
    model: str = ""
    system_fingerprint: str | None = None
    usage: Usage | None = None
    steering: dict[str, Any] | None = None
    experts: dict[str, str] | None = None


class Choice(SteeringFields):
    """The fields of every choice. ``logprobs`` is OpenAI's object, not validated.

    Attributes:
        upstream: the ``model`` and the ``system_fingerprint`` of another server that wrote the text, as it tells them.
    """

    index: int = 0
    finish_reason: str | None = None
    logprobs: Any = None
    upstream: dict[str, str | None] | None = None


class ChatMessage(Reply):
    """A message, or in a stream the next part of a message. ``tool_calls`` has OpenAI's form."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatChoice(Choice):
    """One answer of a chat reply."""

    message: ChatMessage

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self.message.content or ""


class ChatReply(GeneratedReply):
    """The reply of ``/v1/chat/completions``: ``n`` choices, or one for each set of weights of a sweep.

    reply = client.chat("Why do leaves fall?", preferences={"helpful": 1.0})
    reply.text, reply.choices[0].finish_reason
    """

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]

    @property
    def text(self) -> str:
        """The text of the first choice; empty if there is none."""
        return self.choices[0].text if self.choices else ""


class ChatChunkChoice(Choice):
    """The next part of one answer in a stream."""

    delta: ChatMessage

    @property
    def text(self) -> str:
        """The text of this part."""
        return self.delta.content or ""


class ChatChunk(GeneratedReply):
    """One event of a chat stream. The last one may have the usage and no choice."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatChunkChoice]

    @property
    def text(self) -> str:
        """The text of the first choice; empty if there is none."""
        return self.choices[0].text if self.choices else ""


class CompletionChoice(Choice):
    """One continuation, or in a stream the next part of one."""

    text: str = ""


class CompletionReply(GeneratedReply):
    """The reply of ``/v1/completions``, and each event of its stream."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]

    @property
    def text(self) -> str:
        """The text of the first choice; empty if there is none."""
        return self.choices[0].text if self.choices else ""
