"""Which rows of a table of rewards are good in some column, or not dominated by another row. Pure."""

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
Mask = NDArray[np.bool_]


def reach_quantile(table: Table, quantile: float) -> Mask:
    """Tell which rewards ``[N, K]`` reach the quantile of their own column (RiC, arXiv 2402.10207, 3.3)."""
    reached: Mask = table >= np.quantile(table, quantile, axis=0)
    return reached


def find_fronts(table: Table, count: int = 1) -> Mask:
    """Find the rows ``[N]`` of the first fronts of ``[N, K]`` rewards.

    The first front has the rows that no other row dominates: none is nowhere worse and somewhere better. The next one
    has those that only rows of the fronts before dominate. Equal rows are in one front.
    """
    kept = np.zeros(len(table), dtype=bool)
    for _ in range(count):
        left = np.flatnonzero(~kept)
        rest = table[left]
        kept[left[[not _is_dominated(row, rest) for row in rest]]] = True
    return kept


def _is_dominated(row: Table, others: Table) -> bool:
    return bool(((others >= row).all(1) & (others > row).any(1)).any())
