"""Which points are on a front."""

import numpy as np

from tureen_train.front.pareto import chain_points, find_front, find_tolerant_front


def table(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, dtype=np.float64)


def test_a_point_is_left_out_if_another_is_as_good_in_all_and_better_in_one() -> None:
    assert find_front(table((0, 3), (1, 3), (2, 2), (2, 1), (3, 0))) == [1, 2, 4]


def test_equal_points_are_all_on_the_front() -> None:
    assert find_front(table((1, 1), (1, 1), (0, 1))) == [0, 1]


def test_rics_front_leaves_out_what_another_exceeds_in_all_objectives_by_more_than_the_tolerance() -> None:
    points = table((0, 10), (10, 0), (5, 5), (4.95, 4.95), (4.8, 4.8), (0, 9))
    assert find_tolerant_front(points, 0.01) == [0, 1, 2, 3, 5]  # the last is equal to the first in one objective
    assert find_tolerant_front(points, 0.0) == [0, 1, 2, 5]
    assert find_tolerant_front(points, 0.5) == [0, 1, 2, 3, 4, 5]


def test_no_points_have_no_front() -> None:
    none = np.zeros((0, 2))
    assert find_front(none) == find_tolerant_front(none, 0.01) == chain_points(none) == []


def test_a_chain_goes_from_the_least_to_the_nearest_in_shares_of_the_ranges() -> None:
    assert chain_points(table((3, 0), (0, 300), (2, 100), (1, 200))) == [1, 3, 2, 0]
