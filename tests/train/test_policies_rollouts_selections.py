"""Selections by hand, and against brute force on random rewards with many ties."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tureen_train.config import Selection
from tureen_train.policies.rollouts.contract import Reward, Sample
from tureen_train.policies.rollouts.selections import (
    BARE,
    CLOSE,
    EMPTY,
    EQUAL,
    FAILED,
    TRUNCATED,
    Chosen,
    select_answers,
)

Rows = Sequence[Sequence[tuple[float, ...]]]
NAMES = ("kind", "short")


def select(rows: Rows, keep: str, weights: Sequence[float] = (1.0, 1.0), **changes: Any) -> Chosen:
    """Select from answers with these rewards; one alone is ``kind``."""
    samples = [[Sample(str(at), number, "text") for number in range(len(row))] for at, row in enumerate(rows)]
    named = dict(zip(NAMES, weights, strict=True))
    rewards = [[make_reward(values, named) for values in row] for row in rows]
    known = {name: weight for at, (name, weight) in enumerate(named.items()) if at < len(rows[0][0])}
    return select_answers(samples, rewards, Selection.model_validate({"keep": keep, **changes}), known)


def make_reward(values: tuple[float, ...], weights: dict[str, float]) -> Reward:
    named = dict(zip(NAMES, values, strict=False))
    return Reward(named, sum(weights[name] * value for name, value in named.items()))


def kept(chosen: Chosen) -> list[tuple[int, ...]]:
    return [(each.prompt, *each.numbers) for each in chosen.choices]


ROWS = [[(1.0,), (3.0,), (3.0,), (2.0,)], [(0.0,), (0.0,)], [(-1.0,), (5.0,), (4.5,)]]


@pytest.mark.parametrize(
    ("keep", "changes", "expected"),
    [
        ("best", {}, [(0, 1), (1, 0), (2, 1)]),
        ("best_and_worst", {}, [(0, 1, 0), (2, 1, 0)]),
        ("best_and_worst", {"min_gap": 2.0}, [(0, 1, 0), (2, 1, 0)]),
        ("best_and_worst", {"min_gap": 2.1}, [(2, 1, 0)]),
        ("share", {"share": 1 / 3}, [(0, 1), (2, 1), (2, 2)]),
        ("share", {"share": 0.35}, [(0, 1), (0, 2), (2, 1), (2, 2)]),
        ("share", {"share": 0.01}, [(2, 1)]),
        ("threshold", {"threshold": 3.0}, [(0, 1), (0, 2), (2, 1), (2, 2)]),
        ("quantile", {"quantile": 1.0}, [(2, 1)]),
        # nine values, so the quantile 0.75 is the seventh of them, 3
        ("quantile", {"quantile": 0.75}, [(0, 1), (0, 2), (2, 1), (2, 2)]),
        ("pareto", {}, [(0, 1), (0, 2), (1, 0), (1, 1), (2, 1)]),
        ("all", {}, [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]),
    ],
)
def test_selections_by_hand(keep: str, changes: dict[str, Any], expected: list[tuple[int, ...]]) -> None:
    assert kept(select(ROWS, keep, **changes)) == expected


def test_reasons_are_told() -> None:
    assert [each.why for each in select(ROWS, "best").choices] == [
        "the best of 4, 3", "the best of 2, 0", "the best of 3, 5",
    ]  # fmt: skip
    assert select(ROWS, "best_and_worst").choices[1].why == "the best and the worst of 3, 5 and -1"
    assert select(ROWS, "share", share=0.01).choices[0].why == "among the best 1 of 9, 5"
    assert select(ROWS, "threshold", threshold=5.0).choices[0].why == "5 is 5 or more"
    two = select([[(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]], "quantile", quantile=1.0)
    assert [each.why for each in two.choices] == [
        "short at or above the quantile 1", "kind at or above the quantile 1", "kind, short at or above the quantile 1",
    ]  # fmt: skip


def test_pairs_that_are_equal_or_too_close_are_counted() -> None:
    assert select(ROWS, "best_and_worst").left_out == {EQUAL: 1}
    assert select(ROWS, "best_and_worst", min_gap=2.1).left_out == {EQUAL: 1, CLOSE: 1}


def test_a_reward_with_a_negative_weight_is_better_when_it_is_less() -> None:
    rows = [[(1.0, 0.0), (1.0, 5.0), (0.0, 9.0)]]
    assert kept(select(rows, "pareto", weights=(1.0, -1.0))) == [(0, 0)]
    assert kept(select(rows, "pareto")) == [(0, 1), (0, 2)]
    assert kept(select(rows, "quantile", weights=(0.0, -2.0), quantile=1.0)) == [(0, 0)]
    assert kept(select(rows, "best", weights=(1.0, -1.0))) == [(0, 0)]


def test_a_reward_without_a_weight_chooses_nothing() -> None:
    rows = [[(1.0, 0.0), (0.0, 9.0)]]
    assert kept(select(rows, "pareto", weights=(1.0, 0.0))) == [(0, 0)]
    assert kept(select(rows, "quantile", weights=(1.0, 0.0), quantile=1.0)) == [(0, 0)]


def test_answers_without_text_or_reward_are_left_out_and_counted() -> None:
    samples = [
        [Sample("a", 0, " \n"), Sample("a", 1, "x"), Sample("a", 2, "y", finished=False), Sample("a", 3, "z")],
        [Sample("b", 0, ""), Sample("b", 1, "x")],
    ]
    failed = Reward({"short": 1.0}, None, "kind: the server said 500")
    rewards = [
        [Reward({"kind": 9.0}, 9.0), failed, Reward({"kind": 8.0}, 8.0), Reward({"kind": 1.0}, 1.0)],
        [Reward({"kind": 1.0}, 1.0), failed],
    ]
    best = select_answers(samples, rewards, Selection(), {"kind": 1.0})
    assert kept(best) == [(0, 2)]
    assert best.left_out == {EMPTY: 2, FAILED: 2, BARE: 1}
    whole = select_answers(samples, rewards, Selection(drop_truncated=True), {"kind": 1.0})
    assert kept(whole) == [(0, 3)]
    assert whole.left_out == {EMPTY: 2, FAILED: 2, BARE: 1, TRUNCATED: 1}


@pytest.mark.parametrize("keep", ["best", "best_and_worst", "share", "threshold", "quantile", "pareto", "all"])
def test_a_round_without_any_answer_keeps_nothing(keep: str) -> None:
    samples, rewards = [[Sample("a", 0, "")]], [[Reward({"kind": 1.0}, 1.0)]]
    chosen = select_answers(samples, rewards, Selection.model_validate({"keep": keep}), {"kind": 1.0})
    assert (list(chosen.choices), chosen.left_out) == ([], {EMPTY: 1, BARE: 1})


few = st.sampled_from([-1.0, 0.0, 0.25, 2.0])
rows_of_two = st.lists(st.lists(st.tuples(few, few), min_size=1, max_size=5), min_size=1, max_size=5)


@settings(deadline=None)
@given(rows_of_two, st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]), st.sampled_from([(1.0, 1.0), (0.5, -2.0)]))
def test_selections_are_those_of_brute_force(rows: Rows, share: float, weights: tuple[float, float]) -> None:
    totals = {
        (at, number): weights[0] * one + weights[1] * two
        for at, row in enumerate(rows)
        for number, (one, two) in enumerate(row)
    }
    signed = {
        (at, number): (math.copysign(1, weights[0]) * one, math.copysign(1, weights[1]) * two)
        for at, row in enumerate(rows)
        for number, (one, two) in enumerate(row)
    }

    def chosen(keep: str, **changes: Any) -> set[tuple[int, ...]]:
        found = kept(select(rows, keep, weights, **changes))
        assert sorted(found) == found
        assert len(set(found)) == len(found)
        return set(found)

    best = chosen("best")
    assert {at for at, _ in best} == set(range(len(rows)))
    for at, number in best:
        assert totals[at, number] == max(totals[at, each] for each in range(len(rows[at])))
        assert all(totals[at, each] < totals[at, number] for each in range(number))
    pairs = chosen("best_and_worst", min_gap=share)
    for at, row in enumerate(rows):
        own = [totals[at, number] for number in range(len(row))]
        gap = max(own) - min(own)
        wanted = {(at, own.index(max(own)), own.index(min(own)))} if gap > 0 and gap >= share else set()
        assert {each for each in pairs if each[0] == at} == wanted
    if share:
        shared = chosen("share", share=share)
        assert len(shared) - 1 < share * len(totals) <= len(shared)
        rest = totals.keys() - shared
        assert all(totals[one] >= totals[other] for one, other in itertools.product(shared, rest))  # type: ignore[index]
    assert chosen("threshold", threshold=share) == {place for place, total in totals.items() if total >= share}
    least = [np.quantile([values[column] for values in signed.values()], share) for column in range(2)]
    assert chosen("quantile", quantile=share) == {
        place for place, values in signed.items() if values[0] >= least[0] or values[1] >= least[1]
    }
    assert chosen("pareto") == {
        (at, number)
        for (at, number), values in signed.items()
        if not any(
            signed[at, other][0] >= values[0] and signed[at, other][1] >= values[1] and signed[at, other] != values
            for other in range(len(rows[at]))
        )
    }
    assert chosen("all") == totals.keys()
