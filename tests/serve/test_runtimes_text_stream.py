"""What is shown stays: whole characters, and never the beginning of a stop string."""

from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteFallback, Fuse, Replace, Sequence, Strip
from tokenizers.models import BPE

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


# --------------------------------------------------------------------------- what stands before the text


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_prompt_that_breaks_off_inside_a_character_is_no_part_of_the_text(cut: int) -> None:
    """The text is that of its own bytes, wherever the prompt ends."""
    whole = ids("the quick 猫🍲")
    for rest in (" fox", "é", "猫"):
        stream = TextStream(BACKEND, prompt=whole[:-cut])
        assert "".join(stream.push(token) for token in ids(rest)) + stream.close() == rest


def test_the_bytes_that_end_the_prompts_character_are_not_the_character() -> None:
    *begun, last = ids("the quick 猫")
    stream = TextStream(BACKEND, prompt=begun)
    assert "".join(stream.push(token) for token in (last, *ids(" fox"))) == "\ufffd fox"


def test_a_prompt_of_broken_characters_alone_is_no_part_of_the_text() -> None:
    stream = TextStream(BACKEND, prompt=ids("猫")[:1] * 500)
    assert "".join(stream.push(token) for token in ids("a fox")) == "a fox"


def test_bytes_that_break_a_finished_character_do_not_fail() -> None:
    """Where bytes are tokens of their own, one bad byte spoils the run that it ends, as in Llama 2."""
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "\u2581"]
    backend = Tokenizer(BPE({name: at for at, name in enumerate(names)}, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = Sequence([Replace("\u2581", " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)])
    cat, bad, letter = [byte + 1 for byte in "猫".encode()], 256, 257
    stream = TextStream(backend, prompt=[letter])
    assert "".join(stream.push(token) for token in (*cat, bad, letter)) + stream.close() == "猫\ufffda"


# --------------------------------------------------------------------------- how it ends


def test_a_stop_string_is_shown_where_it_is_asked_for() -> None:
    stream = TextStream(BACKEND, ("STOP", "dog"), with_stop=True)
    shown = ""
    for token in ids("the fox. STOP the dog"):
        shown += stream.push(token)
        if stream.stopped:
            break
    assert shown + stream.close() == "the fox. STOP"


@pytest.mark.parametrize(("least", "shown"), [(0, "a"), (1, "a"), (2, "aba"), (3, "aba"), (5, "ababa")])
def test_a_stop_string_counts_that_ends_after_the_first_tokens(least: int, shown: str) -> None:
    tokens = [*ids("a"), *ids("b")] * 4
    assert len(tokens) == 8
    stream = TextStream(BACKEND, ("b",), least=least)
    found = ""
    for token in tokens:
        found += stream.push(token)
        if stream.stopped:
            break
    assert found == shown


def test_a_stop_string_may_begin_in_the_first_tokens_and_end_after_them() -> None:
    stream = TextStream(BACKEND, ("ba",), least=2)
    found = ""
    for token in [*ids("a"), *ids("b")] * 2:
        found += stream.push(token)
        if stream.stopped:
            break
    assert (found, stream.stopped) == ("a", True)


def test_the_stop_string_counts_that_is_complete_first() -> None:
    assert "".join(play("abcd", ("bcd", "c"))[0]) == "ab"


def test_special_tokens_are_shown_where_they_are_asked_for() -> None:
    stream = TextStream(BACKEND, with_specials=True)
    end = TOKENIZER.eos_token_id
    assert stream.push(ids("a")[0]) + stream.push(end) == f"a{TOKENIZER.eos_token}"


def test_a_stop_may_be_asked_for_that_is_never_complete() -> None:
    found, stopped = play("line\n\nEn", ("\n\nEnd",))
    assert ("".join(found), stopped) == ("line\n\nEn", False)
