"""Lines of JSON: what ends one, what is nothing, and that every reader splits what is written."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen.json_lines import RepeatedKey, decode_json, encode_json_text, encode_line, iterate_lines

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


def test_what_ends_a_line_and_what_is_nothing() -> None:
    raw = b"\xef\xbb\xbf{}\r\n\r\n  \n[1]\n" + '"a\u2028b\x85c"'.encode()
    assert list(iterate_lines(io.BytesIO(raw))) == [(1, b"{}"), (4, b"[1]"), (5, '"a\u2028b\x85c"'.encode())]
    assert list(iterate_lines(io.BytesIO(b"\xef\xbb\xbf\n \n"))) == []
    joined = b"\xef\xbb\xbf{}\n" * 2
    assert list(iterate_lines(io.BytesIO(joined))) == [(1, b"{}"), (2, b"{}")]


@given(st.lists(values, max_size=4))
def test_what_is_written_is_split_alike_by_all(given_values: list[Any]) -> None:
    raw = b"".join(encode_line(value) for value in given_values)
    assert [json.loads(line) for line in raw.decode().splitlines()] == given_values
    assert [decode_json(line.decode()) for _, line in iterate_lines(io.BytesIO(raw))] == given_values


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_no_separator_stands_in_a_line(mark: str) -> None:
    line = encode_line({"a": f"x{mark}y"})
    assert mark not in line.decode()
    assert json.loads(line) == {"a": f"x{mark}y"}


def test_what_is_no_json_is_not_written_and_a_repeated_key_is_not_read() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_line(float("nan"))
    with pytest.raises(RepeatedKey, match="a"):
        decode_json('{"a": 1, "a": 2}')


@pytest.mark.parametrize("zero", [-0.0, -0, 0.0])
def test_a_zero_is_never_written_as_negative(zero: float) -> None:
    value = {"score": zero, "rows": [[zero, -0.05, -1.0, 1e-300]], "text": "-0.0", "n": -3}
    text = encode_json_text(value)
    assert json.loads(text) == value
    assert text.replace('"-0.0"', "").count("-0.0") == 1  # of -0.05


def test_an_object_of_another_class_beside_a_negative_zero_is_encoded() -> None:
    assert encode_json_text({"path": Path("a"), "score": -0.0}, str) == '{"path":"a","score":0.0}'
