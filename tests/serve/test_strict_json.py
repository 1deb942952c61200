"""JSON, read strictly: what a lenient reader would pass in silence is refused, in our own words."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen.errors import InvalidRequest, PayloadTooLarge
from tureen.json_lines import find_repeated_name
from tureen_serve import strict_json
from tureen_serve.strict_json import DEEPEST, UNCOUNTED, JsonLimits, parse_json

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
        (b'{"a": 1' + b"0" * 5000 + b"}", "too large"),
        (b'{"a": ' + b"9" * 309 + b"}", "too large"),
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
        (nested(60_000), "the limit is 32 levels"),
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


def test_a_whole_number_may_have_as_many_digits_as_a_finite_one() -> None:
    assert parse_json(b"[" + b"9" * 308 + b", 1" + b"0" * 308 + b"]") == [10**308 - 1, 10**308]


class Name(str):
    """A name that counts how often it is looked at."""

    looks = 0

    def __hash__(self) -> int:
        Name.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        Name.looks += 1
        return super().__eq__(other)


def test_a_repeated_name_is_found_by_looking_at_each_name_a_few_times() -> None:
    names = [Name(number) for number in range(20_000)]
    Name.looks = 0
    assert find_repeated_name([*names, Name(19_999)]) == "19999"
    assert Name.looks <= 3 * 20_001


def test_a_long_name_that_stands_twice_is_not_repeated_in_full() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_json(b'{"%s": 1, "%s": 2}' % (b"k" * 5000, b"k" * 5000))
    assert len(caught.value.message) < 200


def test_the_deepest_nesting_is_refused_by_its_number_of_lists() -> None:
    with pytest.raises(PayloadTooLarge, match="more than 65536 lists"):
        parse_json(nested(4_000_000))


def fill(value: bytes) -> bytes:
    """A list of the value, longer than what is not counted."""
    return b"[" + (value + b",") * (UNCOUNTED // len(value)) + value + b"]"


@pytest.mark.parametrize("value", [b"{}", b"[]", b'{"a":[[]]}', b'[["\\\\",{}]]'])
def test_objects_and_lists_are_counted_before_they_are_built(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    body = fill(value)
    monkeypatch.setattr(json, "loads", never)
    with pytest.raises(PayloadTooLarge, match="more than 1000 lists and objects .`limits.body_objects`") as caught:
        parse_json(body, limits=JsonLimits(objects=1000))
    assert caught.value.code == "too_many_values"


@pytest.mark.parametrize("value", [b"1", b'""', b"null", b'"[,{"', b'"\\\\",true'])
def test_values_are_counted_before_they_are_built(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    body = fill(value)
    monkeypatch.setattr(json, "loads", never)
    with pytest.raises(PayloadTooLarge, match="more than 1000 values .`limits.body_values`"):
        parse_json(body, limits=JsonLimits(values=1000))


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("the document was built")


@pytest.mark.parametrize("text", ["[{," * UNCOUNTED, '\\"[{,' * UNCOUNTED, "\\" * UNCOUNTED])
def test_marks_within_texts_are_no_values(text: str) -> None:
    body = json.dumps({"a": text, "b": [text]}).encode()
    assert parse_json(body, limits=JsonLimits(values=5, objects=2)) == {"a": text, "b": [text]}


@pytest.mark.parametrize("end", [b'"', b'"\\', b'"\\"', b'"' + b'\\"' * UNCOUNTED])
def test_a_text_that_is_not_closed_is_read_once(end: bytes) -> None:
    """Otherwise each of its quotes would begin another text, which also reaches to the end."""
    body = b"[" + b"1," * UNCOUNTED + end
    found = list(strict_json.MARKS.finditer(body))
    assert len(found) == UNCOUNTED + 2
    assert found[-1].end() == len(body)
    assert "not JSON" in refusal(body)


@given(JSON)
def test_a_document_is_refused_only_beyond_its_number_of_values(document: Any) -> None:
    def count(node: Any, counts: Callable[[Any], bool]) -> int:
        below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        return counts(node) + sum(count(each, counts) for each in below)

    values, objects = count(document, lambda _: True), count(document, lambda node: isinstance(node, (dict, list)))
    body = json.dumps(document).encode() + b" " * UNCOUNTED
    assert parse_json(body, limits=JsonLimits(values=values + objects, objects=objects)) == document
    for less in (JsonLimits(values=values - 2), JsonLimits(objects=objects - 1)):
        if min(less.values, less.objects) >= 0:
            with pytest.raises(PayloadTooLarge):
                parse_json(body, limits=less)


@pytest.mark.parametrize(
    ("text", "size"), [("x" * 101, 101), ("ü" * 51, 102), ("\U0001f600" * 26, 104), ("\ud800" * 34, 102)]
)
def test_a_text_over_the_limit_is_refused_with_its_field_its_size_and_the_setting(text: str, size: int) -> None:
    document = {"model": "x", "items": [{"prompt": "x" * 100}, {"prompt": "p", "candidates": ["c", text]}]}
    with pytest.raises(PayloadTooLarge) as caught:
        parse_json(json.dumps(document).encode(), limits=JsonLimits(text_bytes=100))
    assert (caught.value.param, caught.value.code) == ("items[1].candidates[1]", "text_too_large")
    assert f"has {size} bytes and the limit is 100 (`limits.text_bytes`)" in caught.value.message


def test_a_long_text_of_an_item_is_left_to_the_item_where_items_are_spared() -> None:
    document = {"items": [{"prompt": "p", "candidates": ["x" * 101]}], "on_error": "item"}
    assert parse_json(json.dumps(document).encode(), limits=JsonLimits(text_bytes=100)) == document
    with pytest.raises(PayloadTooLarge) as caught:
        parse_json(json.dumps(document | {"rewards": ["x" * 101]}).encode(), limits=JsonLimits(text_bytes=100))
    assert caught.value.param == "rewards[0]"


def test_a_bare_text_has_no_field() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        parse_json(b'"' + b"x" * 101 + b'"', limits=JsonLimits(text_bytes=100))
    assert caught.value.param is None


def test_an_object_has_so_many_fields() -> None:
    body = json.dumps({"a": {str(number): number for number in range(11)}}).encode()
    assert parse_json(body, limits=JsonLimits(fields=11))["a"]["10"] == 10
    with pytest.raises(PayloadTooLarge, match="has 11 fields and the limit is 10 .`limits.body_fields`"):
        parse_json(body, limits=JsonLimits(fields=10))
