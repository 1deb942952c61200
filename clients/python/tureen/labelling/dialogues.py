"""Conversations as plain text, in the styles of :data:`tureen.records.dialogue.STYLES`."""

from collections.abc import Sequence

from tureen.errors import Unprocessable
from tureen.records import dialogue
from tureen.records.schema import BadRecord
from tureen.wire import Message


def write_conversation(messages: Sequence[Message], style: str) -> str:
    """Write a conversation as one text, from which the same messages can be read.

    Raises:
        Unprocessable: the style cannot express a message, or a message contains the mark of a turn.
    """
    try:
        return dialogue.write_dialogue([message.plain() for message in messages], style)
    except BadRecord as error:
        raise Unprocessable(error.detail) from error


def write_prompt_and_answers(prompt: Sequence[Message], answers: Sequence[Sequence[Message]]) -> tuple[str, list[str]]:
    """Write a prompt and its answers in hh-rlhf's style. A prompt and an answer join to :func:`write_conversation`.

    The prompt ends with the mark of the assistant's turn, and each answer begins with the space after this mark.

    Raises:
        Unprocessable: see :func:`write_conversation`; or an answer has several messages.
    """
    for answer in answers:
        if len(answer) != 1:
            raise Unprocessable("the text form has no answers of several messages; write pairs of messages instead")
        write_conversation([*prompt, *answer], "hh")
    mark = dialogue.STYLES["hh"].assistant.rstrip(" ")
    return write_conversation(prompt, "hh") + mark, [f" {answer[0].text}" for answer in answers]
