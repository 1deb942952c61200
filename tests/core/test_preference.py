"""Weights in, one canonical form out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tureen.errors import InvalidRequest, Unprocessable
from tureen.mixes import Normalize
from tureen_core import preference

KNOWN = ("academy", "business", "entertainment", "helpful", "literature")

positive = st.dictionaries(st.sampled_from(KNOWN), st.floats(0, 16), min_size=1).filter(
    lambda weights: sum(weights.values()) > 1e-3
)
close = st.dictionaries(
    st.sampled_from(KNOWN[:2]), st.sampled_from([0, 0.1, 0.1000001, 0.100001, 12.345678, 12.3457, -0.1]), min_size=1
)
signed = st.dictionaries(st.sampled_from(KNOWN), st.floats(-16, 16), min_size=1)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"helpful": 2, "academy": 2}, {"academy": 0.5, "helpful": 0.5}),
        ({"helpful": 1}, {"helpful": 1.0}),
        ({"helpful": 0.3, "academy": 0}, {"helpful": 1.0}),
        ({"academy": 1, "business": 1, "helpful": 1}, {"academy": 0.333333, "business": 0.333333, "helpful": 0.333333}),
        ({"academy": 1, "business": 1e-9}, {"academy": 1.0}),
        ({"academy": 1e-5}, {"academy": 1.0}),
    ],
)
def test_on_the_simplex_weights_sum_to_one(weights: dict[str, float], expected: dict[str, float]) -> None:
    assert preference.normalise_weights(weights, KNOWN) == expected


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"helpful": 2, "academy": -0.5}, {"academy": -0.5, "helpful": 2}),
        ({"helpful": 0.0, "academy": -0.0}, {}),
        ({"helpful": -1e-9}, {}),
        ({"helpful": 16, "academy": -16}, {"academy": -16, "helpful": 16}),
        ({"helpful": 0.12345678}, {"helpful": 0.123457}),
    ],
)
def test_without_normalisation_weights_stay_as_they_are(weights: dict[str, float], expected: dict[str, float]) -> None:
    result = preference.normalise_weights(weights, KNOWN, "none")
    assert result == expected
    assert list(result) == sorted(result)


@pytest.mark.parametrize(
    ("weights", "normalize", "param", "message"),
    [
        ({}, "simplex", "preferences", "at least one weight; known objectives: academy, business"),
        ({}, "none", "preferences", "at least one weight"),
        ({"humor": 1}, "simplex", "preferences.humor", "unknown objective 'humor'; known: academy, business"),
        ({"humor": 0}, "none", "preferences.humor", "unknown objective"),
        ({"helpful": math.nan}, "simplex", "preferences.helpful", "nan, not a finite number"),
        ({"helpful": math.inf}, "none", "preferences.helpful", "inf, not a finite number"),
        ({"helpful": 16.5}, "none", "preferences.helpful", "beyond ±16"),
        ({"helpful": -17}, "none", "preferences.helpful", "beyond ±16"),
        ({"helpful": 2e6}, "simplex", "preferences.helpful", "beyond"),
        ({"helpful": 1, "academy": -0.1}, "simplex", "preferences.academy", "negative: use normalize: none"),
        ({"helpful": 0, "academy": 0}, "simplex", "preferences", "all weights are zero"),
    ],
)
def test_weights_that_mean_nothing_are_refused_by_name(
    weights: dict[str, float], normalize: Normalize, param: str, message: str
) -> None:
    with pytest.raises(Unprocessable, match=message) as caught:
        preference.normalise_weights(weights, KNOWN, normalize)
    assert caught.value.param == param
    assert caught.value.status == 422


def test_rewards_are_subtracted_under_none_and_a_sum_of_nothing_is_refused() -> None:
    weights = {"helpful": 1.0, "academy": -0.5, "literature": 0.0}
    assert preference.normalise_reward_weights(weights, KNOWN, "none") == {"academy": -0.5, "helpful": 1.0}
    assert preference.normalise_reward_weights({"academy": 3, "helpful": 1}, KNOWN) == {
        "academy": 0.75,
        "helpful": 0.25,
    }
    with pytest.raises(Unprocessable, match="'academy' is negative: send `normalize: \"none\"` to subtract a reward"):
        preference.normalise_reward_weights(weights, KNOWN)
    for normalize in ("simplex", "none"):
        with pytest.raises(Unprocessable, match="all weights are zero") as caught:
            preference.normalise_reward_weights({"helpful": 0.0}, KNOWN, normalize, "place")
        assert caught.value.param == "place"


def test_an_unknown_objective_has_a_code_and_a_field_of_the_callers_choice() -> None:
    with pytest.raises(Unprocessable) as caught:
        preference.normalise_weights({"humor": 1}, (), field="candidates.preferences")
    assert caught.value.code == "unknown_objective"
    assert caught.value.param == "candidates.preferences.humor"
    assert caught.value.message.endswith("known: none")


@given(positive)
def test_simplex_weights_are_shares_in_alphabetical_order(weights: dict[str, float]) -> None:
    result = preference.normalise_weights(weights, KNOWN)
    assert math.isclose(sum(result.values()), 1, abs_tol=len(KNOWN) * 1e-6)
    assert list(result) == sorted(result)
    assert all(0 < weight <= 1 for weight in result.values())
    total = sum(weights.values())
    for name, weight in weights.items():
        assert result.get(name, 0.0) == pytest.approx(weight / total, abs=(len(KNOWN) + 1) * 1e-6)


@given(positive)
def test_normalising_twice_changes_nothing(weights: dict[str, float]) -> None:
    """A client that sends an answer's weights back asks for the same soup, with the same digest."""
    once = preference.normalise_weights(weights, KNOWN)
    assert preference.normalise_weights(once, KNOWN) == once


@given(positive)
def test_the_order_of_the_weights_does_not_matter(weights: dict[str, float]) -> None:
    backwards = dict(reversed(weights.items()))
    assert preference.normalise_weights(weights, KNOWN) == preference.normalise_weights(backwards, KNOWN)


@given(signed)
def test_canonical_text_reads_back_as_the_same_weights(weights: dict[str, float]) -> None:
    canonical = preference.normalise_weights(weights, KNOWN, "none")
    text = preference.format_weights(canonical)
    if canonical:
        assert preference.parse_model(f"smol:{text}") == ("smol", canonical)
    else:
        assert text == ""


@given(close, close)
def test_a_digest_names_one_soup(one: dict[str, float], other: dict[str, float]) -> None:
    first, second = (preference.normalise_weights(weights, KNOWN, "none") for weights in (one, other))
    assert (preference.digest_soup(first) == preference.digest_soup(second)) == (first == second)


def test_weights_that_differ_in_the_sixth_decimal_differ_in_text_however_large() -> None:
    near, far = {"academy": 12.345678}, {"academy": 12.3457}
    assert preference.format_weights(near) == "academy=12.345678"
    assert preference.digest_soup(near) != preference.digest_soup(far)


def test_semantics_are_part_of_the_digest() -> None:
    weights = {"academy": 0.6, "business": 0.4}
    assert preference.format_weights(weights) == "academy=0.6,business=0.4"
    assert preference.digest_soup(weights, "delta") != preference.digest_soup(weights, "factor")
    assert len(preference.digest_soup(weights)) == 12


def test_the_text_of_small_and_whole_weights_is_plain() -> None:
    assert preference.format_weights({"b": 1e-6, "a": -10.0, "c": 0.0}) == "a=-10,b=0.000001"
    assert preference.format_weights({}) == ""


@pytest.mark.parametrize(
    ("model", "family", "weights"),
    [
        ("smol", "smol", None),
        ("smol:latest", "smol:latest", None),
        ("smol:", "smol:", None),
        ("smol:academy=0.6,entertainment=0.4", "smol", {"academy": 0.6, "entertainment": 0.4}),
        ("smol: academy = 0.6 , business=-1", "smol", {"academy": 0.6, "business": -1.0}),
        ("smol:a=1e-3", "smol", {"a": 0.001}),
        ("smol:academy=0.6+entertainment=0.4", "smol", {"academy": 0.6, "entertainment": 0.4}),
        ("smol:academy=0.6;entertainment=0.4", "smol", {"academy": 0.6, "entertainment": 0.4}),
        ("smol:a=5e-1+b=+0.3 + c=2e-1", "smol", {"a": 0.5, "b": 0.3, "c": 0.2}),
    ],
)
def test_a_model_name_may_carry_weights(model: str, family: str, weights: dict[str, float] | None) -> None:
    assert preference.parse_model(model) == (family, weights)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("smol:academy=much", "cannot read 'academy=much'"),
        ("smol:academy=", "cannot read 'academy='"),
        ("smol:academy=1,", "cannot read ''"),
        ("smol:academy=1+", "cannot read ''"),
        ("smol:academy=1e+", "cannot read 'academy=1e'"),
        ("smol:academy=1,academy=2", "'academy' is given twice"),
    ],
)
def test_a_suffix_that_cannot_be_read_is_a_400(model: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        preference.parse_model(model)
    assert caught.value.status == 400
    assert caught.value.param == "model"


@pytest.mark.parametrize("name", ["helpful", "P1A", "a.b-c_d", "0", "x" * 64])
def test_names(name: str) -> None:
    assert preference.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".hidden", "a b", "a/b", "ä", "a\n", "a=b", "x" * 65])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(Unprocessable, match="is not a name") as caught:
        preference.check_name(name, "objectives[0].name")
    assert caught.value.param == "objectives[0].name"


def test_the_simplex_takes_percentages() -> None:
    """People write 70 and 30 as soon as 0.7 and 0.3."""
    assert preference.normalise_weights({"helpful": 70, "academy": 30}, KNOWN) == {"academy": 0.3, "helpful": 0.7}
