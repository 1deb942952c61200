"""The calibration of an objective that must have one."""

from tureen_core.calibration import Calibration
from tureen_core.manifest import Objective


def scale_of(objective: Objective) -> Calibration:
    """The calibration of an objective; the test fails where it has none."""
    assert objective.calibration is not None
    return objective.calibration
