"""Win rates: by hand, and symmetrical under a swap of the methods. Pure."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tureen_train.judge.comparisons import Judgement
from tureen_train.judge.win_rates import (
    Tally,
    count_wins,
    estimate_decided_rate,
    estimate_method_rates,
    estimate_win_rate,
)

SHARES = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1))


def judged(*shares: float | None) -> list[Judgement]:
    return [Judgement(share, "" if share is not None else "lost") for share in shares]


def turn(own: list[Judgement]) -> list[Judgement]:
    return [Judgement(None if each.share is None else 1 - each.share, each.error) for each in own]


def test_win_rates_by_hand() -> None:
    """Two wins, a tie and a loss of four verdicts: (2 + ½) / 4. Without the tie: 2 of 3. The failure counts nowhere."""
    own = judged(1.0, 0.75, 0.5, 0.0, None)
    assert count_wins(own) == Tally(wins=2, ties=1, losses=1, failed=1)
    rate, decided = estimate_win_rate(own), estimate_decided_rate(own)
    assert (rate.value, rate.n) == (0.625, 4)
    assert decided.value == pytest.approx(2 / 3)
    assert decided.n == 3
    assert rate.low < rate.value < rate.high
    assert math.isnan(estimate_decided_rate(judged(0.5, 0.5)).value)
    assert math.isnan(estimate_win_rate(judged(None)).value)
    assert math.isnan(estimate_win_rate([]).value)


def test_a_methods_rate_is_the_mean_over_opponents_and_criteria() -> None:
    """Against b 1 and ½, against c ½ (one verdict is lost): (3/4 + ½) / 2; b: (1/4 + 1) / 2; c: (½ + 0) / 2."""
    found = estimate_method_rates(
        ["a", "b", "c"],
        {
            ("short", 0, 1): judged(1.0, 0.5),
            ("short", 0, 2): judged(0.5, None),
            ("short", 1, 2): judged(1.0, 1.0),
        },
    )
    assert [found[name].value for name in "abc"] == [0.625, 0.625, 0.25]
    assert sum(each.value for each in found.values()) == 1.5  # half of all methods


@given(st.lists(SHARES, max_size=12))
def test_a_swap_of_the_methods_swaps_the_counts(shares: list[float | None]) -> None:
    own = judged(*shares)
    assert count_wins(turn(own)) == count_wins(own).turned


@settings(deadline=None, max_examples=10)
@given(st.lists(SHARES, min_size=1, max_size=8))
def test_a_swap_of_the_methods_turns_the_rates_and_their_intervals(shares: list[float | None]) -> None:
    own = judged(*shares)
    for estimate in (estimate_win_rate, estimate_decided_rate):
        one, two = estimate(own), estimate(turn(own))
        assert one.n == two.n
        assert (math.isnan(one.value) and math.isnan(two.value)) or one.value + two.value == pytest.approx(1)
        if not math.isnan(one.low):
            assert one.low == pytest.approx(1 - two.high)
            assert one.high == pytest.approx(1 - two.low)


@settings(deadline=None, max_examples=8)
@given(st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=5))
def test_the_order_of_three_methods_does_not_matter(rows: list[tuple[float | None, ...]]) -> None:
    ab, ac, bc = (judged(*column) for column in zip(*rows, strict=True))
    one = estimate_method_rates(["a", "b", "c"], {("x", 0, 1): ab, ("x", 0, 2): ac, ("x", 1, 2): bc})
    two = estimate_method_rates(["c", "b", "a"], {("x", 0, 1): turn(bc), ("x", 0, 2): turn(ac), ("x", 1, 2): turn(ab)})
    for name in "abc":
        assert one[name].value == pytest.approx(two[name].value, nan_ok=True)
        assert one[name].low == pytest.approx(two[name].low, nan_ok=True)
