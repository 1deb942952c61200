"""RLHFlow's pairs of one text are read back into what was written, and what is none is refused."""

from typing import Any

import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.forms import parse_record
from tureen.records.schema import BadRecord, Conversation
from tureen_core.pair_texts import write_pair_messages

ASKED: Conversation = (
    user_turn("why do\n\nleaves fall?"),
    assistant_turn("the days grow short"),
    user_turn("and in autumn?"),
)
FOX, DOG = (assistant_turn("the quick brown fox"),), (assistant_turn("the lazy dog\n"),)


def row(content: str, letter: str = "A") -> dict[str, Any]:
    return {"messages": [user_turn(content), assistant_turn(letter)]}


@pytest.mark.parametrize("prompt", [ASKED, ASKED[:1]])
@pytest.mark.parametrize(("letter", "scores"), [("A", (1, 0)), ("B", (0, 1)), ("Same", (0.5, 0.5))])
def test_what_is_written_as_published_reads_back(
    prompt: Conversation, letter: str, scores: tuple[float, float]
) -> None:
    (message,) = write_pair_messages(prompt, FOX, DOG)
    record = parse_record(row(message["content"], letter)).finish("here")[0]
    assert record.prompt == prompt
    assert record.answers == (FOX, DOG)
    assert record.scores == scores


def test_augmented_rows_move_the_spaces_with_their_answers() -> None:
    content = "[CONTEXT] \n\n<turn> user\n hi\n [RESPONSE A] second \n[RESPONSE B] first "
    record = parse_record(row(content)).finish("here")[0]
    assert record.answers == ((assistant_turn("second"),), (assistant_turn("first"),))
    assert record.prompt == (user_turn("hi"),)


def test_a_context_without_turns_is_a_prompt() -> None:
    record = parse_record(row("[CONTEXT] \n\nHuman: hi\n\nAssistant: [RESPONSE A] x [RESPONSE B] y \n")).finish("here")[
        0
    ]
    assert record.prompt == (user_turn("hi"),)
    assert parse_record(row("[CONTEXT] hi [RESPONSE A] x [RESPONSE B] y \n")).prompt == (user_turn("hi"),)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (row("[CONTEXT] a [RESPONSE A] x [RESPONSE B] y \n", "C"), "must be A, B, Same, is 'C'"),
        (row("[CONTEXT] a [RESPONSE A] x \n"), "each once"),
        (row("[CONTEXT] a [RESPONSE A] x [RESPONSE B] y [RESPONSE A] z \n"), "each once"),
        (row("[CONTEXT] a [RESPONSE B] x [RESPONSE A] y \n"), "in this order"),
        ({"messages": [user_turn("[CONTEXT] a [RESPONSE A] x [RESPONSE B] y \n")]}, "and the assistant's letter"),
    ],
)
def test_what_is_no_verdict_is_refused(item: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRecord, match=words):
        parse_record(item)


@pytest.mark.parametrize("messages", [[], ["text"], [{"role": "user"}], [user_turn("What is [CONTEXT]?")]])
def test_other_messages_are_of_another_form(messages: list[Any]) -> None:
    with pytest.raises(BadRecord) as caught:
        parse_record({"messages": [*messages, user_turn("?")]}).finish("here")
    assert "pair" not in caught.value.reason
