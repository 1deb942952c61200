"""Plain text of conversations: what is written is what the public styles say, and nothing that reads otherwise."""

import pytest
from hypothesis import example, given, reject
from hypothesis import strategies as st

from tureen.errors import Unprocessable
from tureen.labelling.dialogues import write_conversation, write_prompt_and_answers
from tureen.records import dialogue
from tureen.wire import Message

USER, ASSISTANT = Message(role="user", content="Why?"), Message(role="assistant", content="Because.")


def test_both_styles() -> None:
    assert (
        write_conversation([USER, ASSISTANT, USER], "dsp")
        == "## Human:\nWhy?\n\n## Assistant:\nBecause.\n\n## Human:\nWhy?"
    )
    assert write_conversation([USER, ASSISTANT], "hh") == "\n\nHuman: Why?\n\nAssistant: Because."


def test_prompt_and_answers_join_to_the_whole_text() -> None:
    other = Message(role="assistant", content="  indented")
    prompt, answers = write_prompt_and_answers([USER], [[ASSISTANT], [other]])
    assert [prompt + answer for answer in answers] == [
        write_conversation([USER, ASSISTANT], "hh"),
        write_conversation([USER, other], "hh"),
    ]


ALTERNATING = st.lists(st.text(alphabet="\r\n# HumanAssistant:x", max_size=30), min_size=1, max_size=4).map(
    lambda contents: [
        Message.model_validate({"role": ("user", "assistant")[at % 2], "content": each})
        for at, each in enumerate(contents)
    ]
)


@pytest.mark.parametrize("style", list(dialogue.STYLES))
@given(messages=ALTERNATING)
@example(messages=[Message(role="user", content="x\r"), ASSISTANT])
@example(messages=[Message(role="user", content="\n x \n"), ASSISTANT])
def test_training_reads_the_same_messages_from_what_is_written(style: str, messages: list[Message]) -> None:
    try:
        written = write_conversation(messages, style)
    except Unprocessable:
        reject()
    assert list(dialogue.read_dialogue(written, "text")) == [message.plain() for message in messages]


@pytest.mark.parametrize("style", list(dialogue.STYLES))
@pytest.mark.parametrize("content", ["x\n\n{head} y", "{head} y", "\r\n\r\n{head}"])
def test_what_would_read_as_another_turn_is_refused(style: str, content: str) -> None:
    head = dialogue.STYLES[style].assistant.strip()
    with pytest.raises(Unprocessable, match="begins a turn"):
        write_conversation([USER, Message(role="assistant", content="\n\n" + content.format(head=head))], style)


@pytest.mark.parametrize("role", ["system", "tool"])
def test_other_roles_have_no_text(role: str) -> None:
    with pytest.raises(Unprocessable, match=f"no {role} turn"):
        write_conversation([Message.model_validate({"role": role, "content": "x"}), USER], "dsp")


@pytest.mark.parametrize("field", [{"reasoning_content": "So."}, {"name": "Ann"}])
def test_other_fields_have_no_text(field: dict[str, str]) -> None:
    said = Message.model_validate({"role": "assistant", "content": "x", **field})
    with pytest.raises(Unprocessable, match=f"no {next(iter(field))}"):
        write_conversation([USER, said], "hh")
