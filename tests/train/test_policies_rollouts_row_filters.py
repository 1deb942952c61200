"""Filters of rows by hand, and Pareto fronts against brute force."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tureen_train.policies.rollouts.row_filters import Table, find_fronts, reach_quantile


def test_any_reward_may_reach_its_own_quantile() -> None:
    """The .7-quantiles are 2.1 and 2.1: a row that is bad in one reward is kept for the other."""
    table = np.array([[0.0, 3.0], [1.0, 2.0], [2.0, 1.0], [3.0, 0.0]])
    assert reach_quantile(table, 0.7).tolist() == [[False, True], [False, False], [False, False], [True, False]]
    assert reach_quantile(table, 0.0).all()


def test_the_first_front_has_what_no_other_row_dominates() -> None:
    """The quantile filter would drop the middle row, and keep the second one."""
    table = np.array([[3.0, 0.0], [2.9, -1.0], [1.0, 1.0], [0.0, 3.0], [0.5, 0.5], [3.0, 0.0]])
    assert find_fronts(table).tolist() == [True, False, True, True, False, True]
    assert find_fronts(table, 2).all()
    assert find_fronts(np.empty((0, 2))).tolist() == []


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(mine >= yours for mine, yours in pairs) and any(mine > yours for mine, yours in pairs)


def strip_fronts(rows: list[list[float]], count: int) -> set[int]:
    kept: set[int] = set()
    for _ in range(count):
        left = [at for at in range(len(rows)) if at not in kept]
        kept |= {at for at in left if not any(dominates(rows[other], rows[at]) for other in left)}
    return kept


@given(
    arrays(float, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.sampled_from([0.0, 1.0, 2.0])),
    st.integers(1, 3),
)
def test_fronts_are_those_of_brute_force(table: Table, count: int) -> None:
    assert set(np.flatnonzero(find_fronts(table, count))) == strip_fronts(table.tolist(), count)
