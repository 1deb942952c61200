"""JSON, read strictly: what a lenient reader would pass in silence is refused, in our own words."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen.errors import InvalidRequest
from tureen_serve.strict_json import DEEPEST, parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def refusal(body: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse_json(body)
    assert caught.value.code == "invalid_json"
    assert caught.value.status == 400
    return caught.value.message


@given(JSON)
def test_whatever_is_json_is_read_as_the_standard_library_reads_it(document: Any) -> None:
    assert parse_json(json.dumps(document).encode()) == document
    assert parse_json(json.dumps(document, ensure_ascii=False, indent=1).encode()) == document


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"  ", "not JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": [Infinity]}', "Infinity is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1e999}', "1e999 is too large"),
        (b'{"a": -1e999}', "too large"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "not JSON"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' is twice in one object"),
        (b'{"x": [{"y": {"a": 1, "a": 1}}]}', "'a' is twice in one object"),
        (b"\xff\xfe", "byte 0 cannot be read"),
        (b'{"a": "\xc3"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "not JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        (b'{"a": 1} trailing', "Extra data"),
        (b'{"a": 1}{"a": 1}', "Extra data"),
        (b'{"a": 1', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (nested(DEEPEST + 1), "the limit is 32 levels"),
        (nested(900), "the limit is 32 levels"),
        (nested(100_000), "the limit is 32 levels"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "the limit is 32 levels"),
    ],
)
def test_what_is_not_plain_json_is_refused(body: bytes, says: str) -> None:
    assert says in refusal(body)


def test_what_is_refused_names_the_field_that_stands_twice() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_json(b'{"model": 1, "model": 2}')
    assert caught.value.param == "model"


def test_as_many_levels_as_are_allowed_are_read() -> None:
    assert parse_json(nested(DEEPEST)) is not None
    assert parse_json(b"[" + b"[1]," * 1000 + b"1]")[-1] == 1


def test_large_but_finite_numbers_and_odd_texts_are_read() -> None:
    assert parse_json(b'{"a": 1e308, "b": "\\u0000", "c": "\\ud800"}') == {"a": 1e308, "b": "\x00", "c": "\ud800"}


def test_an_error_calls_the_text_what_it_is() -> None:
    for body in (b"", b"{", b"\xff", nested(40)):
        with pytest.raises(InvalidRequest, match="line 7 is"):
            parse_json(body, "line 7")
