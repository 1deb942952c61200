"""The scale of what a method trained, fitted on held-out answers, and the picture of how honest it is."""

from pathlib import Path

import numpy as np

from tureen_core.calibration import Calibration, fit_calibration
from tureen_train.measures.metrics import Array
from tureen_train.reports.plots import plot_reliability


def calibrate_rewards(rewards: Array, gaps: Array, folder: Path) -> Calibration:
    """Mean and deviation of the rewards, NaN left out, and the temperature of the gaps; ``reliability.png``.

    Args:
        rewards: a table of any shape.
        gaps: ``[P]`` log-odds of what was right, one a pair or a step; none gives no picture.
    """
    scale = fit_calibration(rewards[~np.isnan(rewards)].tolist(), gaps.tolist())
    if gaps.size:
        plot_reliability(gaps, folder / "reliability.png", scale.temperature)
    return scale
