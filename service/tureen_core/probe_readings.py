"""Readings of probes at several weights of an adapter: which are recorded, and what is refused.

The rule of the tolerances is :mod:`tureen_core.tolerance`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from tureen_core.artifact_tensors import ArtifactError
from tureen_core.tolerance import (
    BARE,
    NOISE,
    SERVED,
    SHARE_OF_EFFECT,
    SHARE_OF_RANGE,
    WEIGHTS,
    compute_difference,
    compute_range,
    share_tolerance,
)

Rows = list[list[float]]  # a row for each probe, a column for each objective
Readings = dict[float, Rows]  # by the weight of the adapter
MARGIN = 3.0  # by which the rounding of bfloat16 must stay within the tolerance

log = logging.getLogger(__name__)


def select_column(rows: Rows, column: int) -> list[float]:
    """One objective's readings over the probes."""
    return [row[column] for row in rows]


def check_range(rows: Rows, names: Mapping[int, str]) -> None:
    """Refuse probes that are too alike to tell a right model from a wrong one.

    Args:
        rows: their readings in float32.
        names: column → objective.

    Raises:
        ArtifactError: naming the objective and its range.
    """
    for column, name in names.items():
        values = select_column(rows, column)
        found, wanted = compute_range(values), NOISE / SHARE_OF_RANGE["float32"] * max(1.0, *map(abs, values))
        if not found >= wanted:
            raise ArtifactError(
                f"{name}: the {len(values)} probes read alike (range {found:.2g}, at least {wanted:.2g} is needed), so "
                "they cannot show that a server reads this model: raise `probes`, or hold out answers that differ more"
            )


def choose_readings(read: Callable[[float, bool], Rows], names: Mapping[int, str], trained: bool) -> Readings:
    """Read the probes from an adapter's files as the manifest records them.

    At 0, at 1, and, where the adapter's effect at 1 is not several times the rounding of bfloat16, at the smallest
    larger weight where it is.

    Args:
        read: reads the probes at a weight of the adapter, in float32 or under bfloat16 autocast.
        names: column → objective.
        trained: whether the run trained the adapter; one that was not may be zero.

    Raises:
        ArtifactError: the bare base gives the same readings, so that nothing could tell that the adapter is lost.
    """
    bare, served = read(BARE, False), read(SERVED, False)
    if bare == served and not trained:
        return {SERVED: served}
    tried: dict[float, tuple[float, Rows]] = {}
    for weight in WEIGHTS:
        rows = served if weight == SERVED else read(weight, False)
        halves = read(weight, True)
        tried[weight] = (max(_compare_with_rounding(rows, bare, halves, column) for column in names), rows)
        if tried[weight][0] <= 1 / MARGIN:
            break
    weight = min(tried, key=lambda each: tried[each][0])
    rounding, rows = tried[weight]
    for column, name in names.items():
        _check_effect(select_column(rows, column), select_column(bare, column), name)
    if rounding > 1:
        log.warning("in bfloat16 the adapter's effect drowns in rounding; serve this artifact in float32")
    return {BARE: bare, SERVED: served, weight: rows}


def _compare_with_rounding(rows: Rows, bare: Rows, halves: Rows, column: int) -> float:
    """What bfloat16 rounds one objective by, as a part of the tolerance; below 1 it passes."""
    values = select_column(rows, column)
    allowed = SHARE_OF_EFFECT["bfloat16"] * compute_difference(values, select_column(bare, column))
    rounding = compute_difference(values, select_column(halves, column))
    return rounding / allowed if allowed else torch.inf


def _check_effect(values: Sequence[float], bare: Sequence[float], name: str) -> None:
    """Refuse an adapter that the bare base could stand in for.

    Raises:
        ArtifactError: naming the objective.
    """
    effect = compute_difference(values, bare)
    wanted = NOISE / SHARE_OF_EFFECT["float32"] * max(1.0, *map(abs, values))
    if not effect >= wanted:
        raise ArtifactError(
            f"{name}: the probes read the same without the adapter (effect {effect:.2g}, at least {wanted:.2g} is "
            "needed), so nothing would show that it was lost: train longer, or raise optimisation.learning_rate"
        )


def state_tolerances(rows: Rows, columns: Iterable[int]) -> dict[str, float]:
    """The manifest's tolerances by dtype, which servers read that know no tolerance for each objective."""
    values = [select_column(rows, column) for column in columns]
    found = {dtype: max(share_tolerance(each, (), dtype) for each in values) for dtype in SHARE_OF_RANGE}
    return found | {"float32": 1e-3}
