"""The hypervolume of a front: the volume between its points and a reference point. Larger is better."""

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def measure_hypervolume(points: Points, reference: Sequence[float]) -> float:
    """Compute the exact hypervolume of points ``[points, objectives]`` above a reference point.

        measure_hypervolume(np.array([[2.0, 1.0], [1.0, 2.0]]), [0, 0])  # 3.0

    A point that is not above the reference in every objective adds nothing. The computation is moocore's
    (Fonseca, Paquete, López-Ibáñez, CEC 2006; Guerreiro and Fonseca, Comput. Oper. Res. 2018).

    Raises:
        ValueError: a number is not finite, or the reference has another number of objectives.
    """
    corner = np.array(reference, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != len(corner):
        raise ValueError(f"the reference has {len(corner)} numbers, and the points are of shape {points.shape}")
    if not (np.isfinite(points).all() and np.isfinite(corner).all()):
        raise ValueError("a reward or the reference is not a finite number")
    above = points[(points > corner).all(1)]
    if not len(above):
        return 0.0
    return float(moocore.hypervolume(np.ascontiguousarray(above - corner), ref=np.zeros(len(corner)), maximise=True))


def count_below(points: Points, reference: Sequence[float]) -> int:
    """Count the points that add nothing to the hypervolume, since the reference is not below them."""
    return int((~(points > np.array(reference)).all(1)).sum())
