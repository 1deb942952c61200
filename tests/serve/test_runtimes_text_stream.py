"""What is shown stays: whole characters, and never the beginning of a stop string."""

from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from tureen_serve.runtimes.text_stream import TextStream

TOKENIZER: Any = tiny.tokenizer()
BACKEND = TOKENIZER.backend_tokenizer


def ids(text: str) -> list[int]:
    found: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return found


def play(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """The pieces of a text up to its stop or end."""
    stream = TextStream(BACKEND, stop)
    pieces = []
    for token in ids(text):
        pieces.append(stream.push(token))
        if stream.stopped:
            return pieces, True
    return [*pieces, stream.close()], False


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30))
def test_pieces_make_the_text(text: str) -> None:
    pieces, _ = play(text)
    assert "".join(pieces) == text


@pytest.mark.parametrize("text", ["naïve 猫 🍲!", "é", "🇩🇪 Fähnchen"])
def test_half_a_character_is_never_shown(text: str) -> None:
    pieces, _ = play(text)
    assert len(ids(text)) > len(text.split())
    assert all("�" not in piece for piece in pieces)


def test_an_unfinished_character_is_left_out() -> None:
    stream = TextStream(BACKEND)
    pieces = [stream.push(token) for token in ids("a猫")[:-1]]
    assert "".join(pieces) + stream.close() == "a"


def test_bytes_that_are_no_utf8_become_the_replacement_character() -> None:
    stream = TextStream(BACKEND)
    lone = ids("猫")[0]
    pieces = [stream.push(token) for token in (lone, *ids("ab"))]
    assert "".join(pieces) == "�ab"


def test_a_stop_string_ends_the_text_before_it() -> None:
    pieces, stopped = play("the fox. STOP the dog", ("STOP",))
    assert stopped
    assert "".join(pieces) == "the fox. "


def test_the_first_of_several_stop_strings_counts() -> None:
    assert "".join(play("one two three", ("three", "two"))[0]) == "one "
    assert "".join(play("abcd", ("cd", "bcd"))[0]) == "a"


def test_what_might_become_a_stop_string_is_held_back() -> None:
    stream = TextStream(BACKEND, ("\n\nEnd",))
    shown = ""
    for token in ids("line\n\nEn"):
        shown += stream.push(token)
        assert "\n" not in shown
    assert shown == "line"
    assert stream.close() == "\n\nEn"


def test_what_was_held_back_is_shown_once_it_cannot_stop() -> None:
    pieces, stopped = play("aab", ("aac",))
    assert not stopped
    assert "".join(pieces) == "aab"


def test_a_stop_string_may_begin_inside_a_false_start() -> None:
    pieces, stopped = play("xababc", ("abc",))
    assert stopped
    assert "".join(pieces) == "xab"


def test_special_tokens_are_not_text() -> None:
    stream = TextStream(BACKEND)
    assert stream.push(TOKENIZER.eos_token_id) + stream.push(ids("a")[0]) == "a"


def test_an_empty_stop_string_stops_nothing() -> None:
    assert play("fox", ("",)) == (play("fox")[0], False)


def test_a_leading_space_after_a_prompt_stays() -> None:
    stream = TextStream(BACKEND, prompt=ids("the quick"))
    assert "".join(stream.push(token) for token in ids(" brown")) == " brown"


@settings(max_examples=150, deadline=None)
@given(st.text("abc\n", max_size=24), st.lists(st.text("abc\n", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_text_is_cut_at_the_earliest_stop(text: str, stops: list[str]) -> None:
    pieces, stopped = play(text, tuple(stops))
    shown = "".join(pieces)
    assert stopped == any(stop in text for stop in stops)
    assert text.startswith(shown)
    if not stopped:
        assert shown == text
    assert not any(stop in shown for stop in stops)
    for end in range(len(pieces)):
        assert shown.startswith("".join(pieces[:end]))
