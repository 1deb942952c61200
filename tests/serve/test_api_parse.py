"""The strict reader: what a lenient one would pass in silence is refused, over HTTP, in our own words."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve.border import served

from tureen.errors import InvalidRequest, UnsupportedMedia
from tureen_serve.api.parse import DEEPEST, LARGE, check_type, parse

ITEM = b'{"items": [{"prompt": "hi", "candidates": ["calm"]}]'

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def refusal(body: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    assert caught.value.code == "invalid_json"
    assert caught.value.status == 400
    return caught.value.message


@given(JSON)
def test_whatever_is_json_is_read_as_the_standard_library_reads_it(document: Any) -> None:
    assert parse(json.dumps(document).encode()) == document
    assert parse(json.dumps(document, ensure_ascii=False, indent=1).encode()) == document


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
        (b'{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
        (b'{"x": [{"y": {"a": 1, "a": 1}}]}', "'a' stands twice"),
        (b"\xff\xfe", "byte 0 cannot be read"),
        (b'{"a": "\xc3"}', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "not JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        (b'{"a": 1} trailing', "Extra data"),
        (b'{"a": 1}{"a": 1}', "Extra data"),
        (b'{"a": 1', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (nested(DEEPEST + 1), "deeper than 32"),
        (nested(900), "deeper than 32"),
        (nested(100_000), "deeper than 32"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "deeper than 32"),
    ],
)
def test_what_is_not_plain_json_is_refused(body: bytes, says: str) -> None:
    assert says in refusal(body)


def test_what_is_refused_names_the_field_that_stands_twice() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(b'{"model": 1, "model": 2}')
    assert caught.value.param == "model"


def test_as_many_levels_as_are_allowed_are_read() -> None:
    assert parse(nested(DEEPEST)) is not None
    assert parse(b"[" + b"[1]," * 1000 + b"1]")[-1] == 1


def test_large_but_finite_numbers_and_odd_texts_are_read() -> None:
    assert parse(b'{"a": 1e308, "b": "\\u0000", "c": "\\ud800"}') == {"a": 1e308, "b": "\x00", "c": "\ud800"}


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=UTF-8", "application/x+json"])
def test_json_in_utf8_is_taken(content_type: str) -> None:
    check_type(content_type, "identity")


@pytest.mark.parametrize(
    ("content_type", "encoding", "says"),
    [
        ("", "identity", "Content-Type: application/json"),
        ("text/plain", "identity", "Content-Type: application/json"),
        ("application/x-www-form-urlencoded", "identity", "Content-Type: application/json"),
        ("text/json+json", "identity", "Content-Type: application/json"),
        ("application/json; charset=utf-16", "identity", "utf-16"),
        ('application/json; charset="latin-1"', "identity", "latin-1"),
        ("application/json", "gzip", "gzip"),
    ],
)
def test_other_media_are_refused(content_type: str, encoding: str, says: str) -> None:
    with pytest.raises(UnsupportedMedia, match=says):
        check_type(content_type, encoding)


def test_the_routes_read_strictly_and_answer_in_the_error_object() -> None:
    cases = [
        (ITEM + b', "rewards": NaN}', {}, 400, None),
        (ITEM + b', "items": []}', {}, 400, "items"),
        (ITEM + b"} x", {}, 400, None),
        (b"\xff", {}, 400, None),
        (b"", {}, 400, None),
        (ITEM + b"}", {"content-type": "text/plain"}, 415, None),
        (ITEM + b"}", {"content-encoding": "gzip"}, 415, None),
        (ITEM + b"}", {}, 200, None),
    ]
    with served() as client:
        for body, headers, status, param in cases:
            sent = {"content-type": "application/json", **headers}
            reply = client.post("/v1/score", content=body, headers=sent)
            assert reply.status_code == status, body
            if status != 200:
                assert reply.json()["error"]["param"] == param
                assert reply.json()["error"]["type"] == "invalid_request_error"
        assert client.post("/v1/score", content=ITEM + b"}", headers={"content-type": ""}).status_code == 415


def test_a_large_body_is_read_as_strictly_as_a_small_one() -> None:
    padding = b'"padding": "' + b"x" * LARGE + b'"'
    with served() as client:
        headers = {"content-type": "application/json"}
        unknown = client.post("/v1/score", content=ITEM + b", " + padding + b"}", headers=headers)
        assert unknown.json()["error"]["param"] == "padding"
        twice = client.post("/v1/score", content=ITEM + b", " + padding + b', "items": 1}', headers=headers)
        assert (twice.status_code, twice.json()["error"]["param"]) == (400, "items")


def test_the_bodies_are_documented() -> None:
    with served() as client:
        schema = client.get("/openapi.json").json()
    body = schema["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "items" in schema["components"]["schemas"][body["$ref"].rsplit("/", 1)[1]]["properties"]
