"""The preferences at which methods are measured."""

import math

import pytest

from tureen_train.front.grids import EVERYWHERE, TRIPLES, find_point, plan_grid, plan_lattice


def test_two_objectives_have_eleven_points() -> None:
    grid = plan_grid(["a", "b"])
    assert [point.get("a", 0.0) for point in grid.values()] == pytest.approx([step / 10 for step in range(11)])
    assert list(grid)[:2] == ["b=1", "a=0.1+b=0.9"]


def test_three_objectives_have_the_published_triples() -> None:
    published = (
        "0,0,1 0,1,0 .1,.1,.8 .1,.8,.1 .2,.2,.6 .2,.4,.4 .2,.6,.2 .33,.33,.33 .4,.4,.2 .4,.2,.4 .6,.2,.2 .8,.1,.1 1,0,0"
    )
    told = [tuple(map(float, each.split(","))) for each in published.split()]
    assert list(TRIPLES) == told
    found = list(plan_grid(["a", "b", "c"]).values())
    for point, triple in zip(found, told, strict=True):
        assert [point.get(name, 0.0) for name in "abc"] == pytest.approx(
            [each / sum(triple) for each in triple], abs=1e-6
        )


@pytest.mark.parametrize(("size", "steps"), [(2, 4), (3, 5), (4, 3), (5, 3)])
def test_a_lattice_has_every_point_once_and_all_add_up_to_one(size: int, steps: int) -> None:
    rows = plan_lattice(size, steps)
    assert len(rows) == len(set(rows)) == math.comb(steps + size - 1, size - 1)
    assert [sum(row) for row in rows] == pytest.approx([1.0] * len(rows))
    assert all(round(weight * steps, 9).is_integer() for row in rows for weight in row)


def test_four_objectives_have_a_lattice_of_thirds() -> None:
    assert len(plan_grid(list("abcd"))) == 20


def test_points_are_normalised_and_a_point_that_stands_there_twice_is_refused() -> None:
    assert list(plan_grid(["a", "b"], points=[{"a": 3, "b": 1}])) == ["a=0.75+b=0.25"]
    with pytest.raises(ValueError, match=r"grid.points: two points are a=0.5\+b=0.5"):
        plan_grid(["a", "b"], points=[{"a": 1, "b": 1}, {"a": 2, "b": 2}])
    with pytest.raises(ValueError, match=r"grid\.points\.1: all weights are zero"):
        plan_grid(["a", "b"], points=[{"a": 1}, {"a": 0, "b": 0}])


def test_a_method_that_no_preference_reaches_has_one_place_for_all_points() -> None:
    assert find_point([EVERYWHERE], "a=1") == EVERYWHERE
    assert find_point(["a=1"], "a=1") == "a=1"
    assert find_point(["a=1"], "b=1") is None
