"""The hypervolume against cases by hand, and against inclusion and exclusion."""

import math
from itertools import combinations

import numpy as np
import pytest

from tureen_train.front.hypervolume import Points, count_below, measure_hypervolume


def include_and_exclude(points: Points, reference: list[float]) -> float:
    """The volume of the union of boxes, from the volumes of all their intersections."""
    boxes = np.clip(points - np.array(reference), 0, None)
    return math.fsum(
        (-1) ** (size + 1) * float(np.prod(np.min(some, axis=0)))
        for size in range(1, len(boxes) + 1)
        for some in combinations(boxes, size)
    )


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([[2, 1], [1, 2]], [0, 0], 3),
        ([[2, 1], [1, 2], [1, 1]], [0, 0], 3),  # a dominated point adds nothing
        ([[2, 1], [2, 1]], [0, 0], 2),
        ([[1, 1]], [-1, -2], 6),
        ([[1, 1], [5, -3]], [0, 0], 1),  # nothing below the reference counts
        ([[0, 4]], [0, 0], 0),
        ([[1, 1, 1], [2, 1, 0.5]], [0, 0, 0], 1.5),
        ([[2, 2, 1], [1, 1, 2]], [0, 0, 0], 5),
    ],
    ids=str,
)
def test_cases_by_hand(points: list[list[float]], reference: list[float], volume: float) -> None:
    assert measure_hypervolume(np.array(points, dtype=np.float64), reference) == pytest.approx(volume)


@pytest.mark.parametrize("objectives", [2, 3, 4, 5])
def test_it_is_that_of_inclusion_and_exclusion(objectives: int) -> None:
    draw = np.random.default_rng(objectives)
    for _ in range(20):
        points, reference = draw.normal(size=(7, objectives)), [-1.0] * objectives
        assert measure_hypervolume(points, reference) == pytest.approx(include_and_exclude(points, reference))


def test_it_does_not_depend_on_the_order_and_moves_with_the_reference() -> None:
    points = np.random.default_rng(0).normal(size=(9, 3))
    volume = measure_hypervolume(points, [-2.0] * 3)
    assert measure_hypervolume(points[::-1], [-2.0] * 3) == pytest.approx(volume)
    assert measure_hypervolume(points + 5, [3.0] * 3) == pytest.approx(volume)


def test_points_that_add_nothing_are_counted() -> None:
    assert count_below(np.array([[1.0, 1.0], [0.0, 4.0], [-1.0, 2.0]]), [0, 0]) == 2


def test_what_is_no_number_or_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        measure_hypervolume(np.array([[1.0, np.nan]]), [0, 0])
    with pytest.raises(ValueError, match="the reference has 3 numbers"):
        measure_hypervolume(np.ones((2, 2)), [0, 0, 0])
