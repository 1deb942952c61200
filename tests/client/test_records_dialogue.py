"""Dialogues as one string: every style, what ends a turn, and the way back."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tureen.records import dialogue
from tureen.records.dialogue import STYLES, assistant_turn, user_turn
from tureen.records.schema import BadOption, BadRecord

TURNS = [
    user_turn("hi"),
    assistant_turn("hello\n\nyou"),
    user_turn("again?"),
    assistant_turn("yes"),
]

# Pieces that turns begin and end with, so that ambiguous texts do come up.
PIECES = ["\n", "\n\n", "\r\n", "\r", " ", "Human:", "Assistant:", "## ", "User: ", "a", "ü", "\u2028"]
contents = st.text(st.characters(codec="utf-8"), max_size=40) | st.lists(st.sampled_from(PIECES)).map("".join)
messages = st.lists(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant"]), contents),
    min_size=1,
    max_size=5,
)


def test_the_style_of_hh() -> None:
    text = "\n\nHuman: hi\n\nAssistant: hello\n\nyou\n\nHuman: again?\n\nAssistant: yes"
    assert list(dialogue.read_dialogue(text, "text")) == TURNS
    assert dialogue.write_dialogue(TURNS, "hh") == text


def test_the_style_of_dsp() -> None:
    text = "## Human:\nhi\n\n## Assistant:\nhello\n\nyou\n\n## Human:\nagain?\n\n## Assistant:\nyes"
    assert list(dialogue.read_dialogue(text, "text")) == TURNS
    assert dialogue.write_dialogue(TURNS, "dsp") == text


@pytest.mark.parametrize("head", ["", "\n\n", "\r\n\r\n", "  \n"])
def test_white_space_before_the_first_turn_is_nothing(head: str) -> None:
    assert dialogue.read_dialogue(f"{head}Human: hi\n\nAssistant: yo", "text") == (
        user_turn("hi"),
        assistant_turn("yo"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "\r\n\r\nHuman: hi\r\n\r\nAssistant: a\r\nb",
        "## Human:\r\nhi\r\n\r\n## Assistant:\r\na\r\nb",
    ],
)
def test_windows_line_breaks_end_a_turn_and_stay_inside_one(text: str) -> None:
    assert dialogue.read_dialogue(text, "text") == (user_turn("hi"), assistant_turn("a\r\nb"))


def test_only_the_one_joining_space_is_taken_from_a_turn() -> None:
    assert dialogue.read_dialogue("Human:hi \n\nAssistant:  yo", "text") == (
        user_turn("hi "),
        assistant_turn(" yo"),
    )
    assert dialogue.read_dialogue("Human:\nhi\n\nAssistant:\tyo", "text") == (
        user_turn("\nhi"),
        assistant_turn("\tyo"),
    )


def test_a_speaker_in_the_middle_of_a_line_or_after_one_break_begins_no_turn() -> None:
    text = "\n\nHuman: a  Human: b\nAssistant: c\n\nHumans: d\n\nAssistant: e"
    assert dialogue.read_dialogue(text, "text") == (
        user_turn("a  Human: b\nAssistant: c\n\nHumans: d"),
        assistant_turn("e"),
    )


def test_two_turns_of_one_speaker_stay_two() -> None:
    assert dialogue.read_dialogue("Human: a\n\nAssistant: b\n\nAssistant: c", "text")[1:] == (
        assistant_turn("b"),
        assistant_turn("c"),
    )


def test_an_empty_answer_is_an_empty_turn() -> None:
    assert dialogue.read_dialogue("\n\nHuman: a\n\nAssistant:", "text")[-1] == assistant_turn("")


@pytest.mark.parametrize(
    "text", ["", " ", "hello", "Hello Human: x", "Human, x", "# Human:\nx", "User: hi\nAssistant: yo"]
)
def test_what_begins_with_no_turn_is_no_dialogue(text: str) -> None:
    with pytest.raises(BadRecord, match=r"`text\[1\]` must begin with"):
        dialogue.read_dialogue(text, "text[1]")


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("What is a quark?", (user_turn("What is a quark?"),)),
        ("SUBREDDIT: r/x\n\nPOST: y\n\nTL;DR:", (user_turn("SUBREDDIT: r/x\n\nPOST: y\n\nTL;DR:"),)),
        ("\n\nHuman: hi\n\nAssistant: ", (user_turn("hi"),)),
        ("\n\nHuman: hi\n\nAssistant:", (user_turn("hi"),)),
        ("\n\nHuman: hi", (user_turn("hi"),)),
        (
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:",
            (user_turn("a"), assistant_turn("b"), user_turn("c")),
        ),
        ("## Human:\nhi\n\n## Assistant:\n", (user_turn("hi"),)),
        ("User: hi\nthere\nAssistant: ", (user_turn("hi\nthere"),)),
        (
            "User: a\nAssistant: b\n\nUser: c\nAssistant: ",
            (user_turn("a"), assistant_turn("b"), user_turn("c")),
        ),
        ("User: a story about\nAssistant: the film", (user_turn("User: a story about\nAssistant: the film"),)),
        ("User: alone", (user_turn("User: alone"),)),
    ],
)
def test_a_prompt_is_a_dialogue_without_its_cue_or_one_request(text: str, prompt: tuple[dict[str, str], ...]) -> None:
    assert dialogue.read_prompt(text) == prompt


@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_turn_that_the_text_form_lacks_cannot_be_written(role: str) -> None:
    with pytest.raises(BadRecord, match=f"no {role} turn"):
        dialogue.write_dialogue([{"role": role, "content": "x"}, *TURNS])


@pytest.mark.parametrize(
    ("style", "text"), [("hh", "a\n\nAssistant: b"), ("dsp", "a\n\n## Human:\nb"), ("dsp", "ends with a return\r")]
)
def test_a_turn_that_would_read_back_otherwise_cannot_be_written(style: str, text: str) -> None:
    with pytest.raises(BadRecord, match="write pairs of messages"):
        dialogue.write_dialogue([user_turn(text), assistant_turn("yes")], style)


def test_an_unknown_style_is_refused_with_the_known() -> None:
    with pytest.raises(BadOption, match="'chatml'; use hh, dsp"):
        dialogue.write_dialogue(TURNS, "chatml")


@pytest.mark.parametrize("style", STYLES)
@settings(deadline=None)
@given(turns=messages)
def test_what_is_written_reads_back_the_same(style: str, turns: list[dict[str, str]]) -> None:
    try:
        text = dialogue.write_dialogue(turns, style)
    except BadRecord:
        assume(False)
    assert list(dialogue.read_dialogue(text, "text")) == turns


@pytest.mark.parametrize("style", STYLES)
@settings(deadline=None)
@given(turns=messages)
def test_plain_turns_can_always_be_written(style: str, turns: list[dict[str, str]]) -> None:
    plain = [{**turn, "content": turn["content"].replace("\r", "").replace(":", "")} for turn in turns]
    assert list(dialogue.read_dialogue(dialogue.write_dialogue(plain, style), "text")) == plain
