"""A mix is split the same at each separator, and never within a number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen.errors import Unprocessable
from tureen.mixes import Normalize, check_single, check_sum, split_mix, split_normalize

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True)
NUMBERS = st.floats(0, 1).map(repr) | st.sampled_from(["1e+2", "+0.5", "1E+0", ".5", "5.", "-1", "2e-3"])


@given(st.lists(st.tuples(NAMES, NUMBERS), min_size=1, max_size=4))
def test_every_separator_splits_alike(weights: list[tuple[str, str]]) -> None:
    parts = [f"{name}={number}" for name, number in weights]
    for separator in ("+", ";", ",", " + ", "; ", ", ", " "):
        assert split_mix(separator.join(parts)) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ["a"]),
        ("a+b;c,d", ["a", "b", "c", "d"]),
        (" a = 0.6 , b=-1 ", ["a = 0.6", "b=-1"]),
        ("org/a+org/b", ["org/a", "org/b"]),
        ("a=1,", ["a=1", ""]),
        ("", [""]),
    ],
)
def test_names_and_white_space(text: str, parts: list[str]) -> None:
    assert split_mix(text) == parts


@pytest.mark.parametrize(("weights", "total"), [({"a": 0.7}, "0.7"), ({"a": 1, "b": 3}, "4"), ({"a": 0.999}, "0.999")])
def test_weights_that_do_not_add_up_are_told_their_sum(weights: dict[str, float], total: str) -> None:
    with pytest.raises(Unprocessable, match=f"'the text' add up to {total}; .* cut the text at a comma") as caught:
        check_sum(weights, "the text", "place")
    assert caught.value.param == "place"


def test_a_mark_says_that_weights_are_used_as_written() -> None:
    assert split_normalize("none:a=1+b=-0.5") == ("none", "a=1+b=-0.5")
    assert split_normalize(" none: a=1") == ("none", "a=1")
    assert split_normalize("none=1+a=2") == ("simplex", "none=1+a=2")


def test_a_single_weight_may_be_what_a_cut_has_left() -> None:
    check_single({"a": 1.0}, "simplex", "a=1", "place")
    check_single({"a": 1.0, "b": -0.5}, "none", "none:a=1+b=-0.5", "place")
    cut: list[tuple[dict[str, float], Normalize]] = [({"a": 0.7}, "simplex"), ({"a": 1.0}, "none")]
    for weights, normalize in [*cut, ({"a": -1.0}, "none")]:
        with pytest.raises(Unprocessable, match="a client has cut the text at a comma") as caught:
            check_single(weights, normalize, "text", "place")
        assert caught.value.param == "place"


@given(st.integers(1, 12))
def test_equal_weights_may_be_rounded_to_three_decimals(count: int) -> None:
    check_sum({str(number): round(1 / count, 3) for number in range(count)}, "the text")
