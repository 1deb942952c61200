"""Which of several points are on the Pareto front; larger is better in every objective. Pure."""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # [points, objectives]


def find_front(points: Points) -> list[int]:
    """The numbers of the points that no other point dominates: none is as good in all objectives and better in one.

    Equal points are all on the front.
    """
    return [
        at
        for at, point in enumerate(points)
        if not any(np.all(other >= point) and np.any(other > point) for other in points)
    ]


def find_tolerant_front(points: Points, tolerance: float) -> list[int]:
    """The numbers of the points that RiC (arXiv 2402.10207) plots as a front.

    A point is left out if another one exceeds it by more than ``tolerance`` of the range in every objective. The range
    is that of all points.
    """
    if not len(points):
        return []
    slack = tolerance * (points.max(0) - points.min(0))
    return [at for at, point in enumerate(points) if not any(np.all(other > point + slack) for other in points)]


def chain_points(points: Points) -> list[int]:
    """The order in which a line joins points: from the one that is least in the first objective to the nearest, and on.

    Distances are in shares of the range of each objective.
    """
    if not len(points):
        return []
    spread = points.max(0) - points.min(0)
    scaled = points / np.where(spread > 0, spread, 1.0)
    order = [int(np.lexsort(points.T[::-1])[0])]
    left = [at for at in range(len(points)) if at != order[0]]
    while left:
        nearest = min(left, key=lambda at: (float(np.linalg.norm(scaled[at] - scaled[order[-1]])), at))
        order.append(nearest)
        left.remove(nearest)
    return order
