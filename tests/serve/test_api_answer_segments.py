"""Segments of an answer: they are the whole answer, in order, and not more than wanted."""

from typing import get_args

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from tureen.wire import SegmentUnit
from tureen_serve.api.answer_segments import split_answer

TOKENIZER = tiny.tokenizer()
UNITS = get_args(SegmentUnit)
PROSE = 'It rains. "Take a coat!" she said … 雨です。傘を！\n\nv1.5 is out, e.g. today'


def cut(answer: str, by: SegmentUnit, most: int = 256) -> list[str]:
    return [answer[start:end] for start, end in split_answer(answer, by, most, TOKENIZER)]


def test_words_and_sentences() -> None:
    assert cut(" one  two\nthree ", "words") == [" one", "  two", "\nthree "]
    assert cut(PROSE, "sentences") == [
        "It rains. ",
        '"Take a coat!" ',
        "she said … 雨です。",
        "傘を！\n\n",
        "v1.5 is out, e.g. ",
        "today",
    ]


def test_tokens_are_those_of_the_tokenizer_and_never_half_a_character() -> None:
    offsets = TOKENIZER("calm words", add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert split_answer("calm words", "tokens", 256, TOKENIZER) == [(0, offsets[0][1]), *offsets[1:]]
    assert cut("🦊🦊", "tokens") == ["🦊", "🦊"]


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_neighbours_are_joined_where_there_are_too_many(most: int) -> None:
    found = cut("a b c d e f g", "words", most)
    assert len(found) == most
    assert "".join(found) == "a b c d e f g"
    assert max(map(len, found)) - min(map(len, found)) <= 3


@pytest.mark.parametrize("by", UNITS)
@given(st.text(min_size=1, max_size=60), st.integers(1, 8))
def test_segments_are_the_whole_answer(by: SegmentUnit, answer: str, most: int) -> None:
    found = cut(answer, by, most)
    assert "".join(found) == answer
    assert 1 <= len(found) <= most
    assert all(found)
