"""The preferences at which methods are measured. Pure."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from tureen.errors import Unprocessable
from tureen_core.preference import format_weights, normalise_weights

Weights = Mapping[str, float]

EVERYWHERE = "any"  # the point of a method that no preference reaches
PAIR_STEPS = 10
LATTICE_STEPS = 3
TRIPLES = (  # RiC's (arXiv 2402.10207)
    *((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.1, 0.1, 0.8), (0.1, 0.8, 0.1), (0.2, 0.2, 0.6), (0.2, 0.4, 0.4)),
    *((0.2, 0.6, 0.2), (0.33, 0.33, 0.33), (0.4, 0.4, 0.2), (0.4, 0.2, 0.4), (0.6, 0.2, 0.2), (0.8, 0.1, 0.1)),
    (1.0, 0.0, 0.0),
)


def plan_grid(
    objectives: Sequence[str], steps: int | None = None, points: Sequence[Weights] | None = None
) -> dict[str, Weights]:
    """Plan the points of a grid, normalised, by their names (:func:`name_point`).

    Example::

        plan_grid(["a", "b"], steps=2)  # {"b=1": {"b": 1.0}, "a=0.5+b=0.5": {"a": 0.5, "b": 0.5}, "a=1": {"a": 1.0}}

    Args:
        objectives: two or more.
        steps: the weights are multiples of 1/steps. By default two objectives have eleven points, three those of RiC,
            and more a simplex lattice (Scheffé, J. R. Stat. Soc. B 20 (1958) 344-360) with three steps.
        points: the points themselves.

    Raises:
        ValueError: a point cannot be normalised, or stands there twice.
    """
    if points is None and steps is None and len(objectives) == 3:
        rows: Sequence[Sequence[float]] = TRIPLES
    else:
        rows = plan_lattice(len(objectives), steps or (PAIR_STEPS if len(objectives) == 2 else LATTICE_STEPS))
    given = points or [dict(zip(objectives, row, strict=True)) for row in rows]
    found = [_normalise_point(at, point, objectives) for at, point in enumerate(given)]
    names = [name_point(point) for point in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"grid.points: two points are {twice[0]}; leave one of them out")
    return dict(zip(names, found, strict=True))


def _normalise_point(at: int, point: Weights, objectives: Sequence[str]) -> Weights:
    try:
        return normalise_weights(point, objectives, field=f"grid.points.{at}")
    except Unprocessable as error:
        raise ValueError(f"grid.points.{at}: {error}") from error


def find_point(points: Sequence[str], point: str) -> str | None:
    """Where the answers of a method with these points stand for a point of the grid; None if it has none."""
    name = EVERYWHERE if list(points) == [EVERYWHERE] else point
    return name if name in points else None


def plan_lattice(size: int, steps: int) -> list[tuple[float, ...]]:
    """List all vectors of ``size`` multiples of 1/steps that add up to 1, in the order of the first, second, ..."""
    rows = []
    for bars in combinations(range(steps + size - 1), size - 1):
        edges = (-1, *bars, steps + size - 1)
        rows.append(tuple((right - left - 1) / steps for left, right in zip(edges, edges[1:], strict=False)))
    return rows


def name_point(weights: Weights) -> str:
    """The name of a point in files and tables: ``a=0.7+b=0.3``."""
    return format_weights(weights).replace(",", "+")
