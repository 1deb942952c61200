"""Calibration of trained rewards on held-out answers, and its reliability diagram."""

from pathlib import Path

import numpy as np

from tureen_core.calibration import Calibration, fit_calibration
from tureen_train.measures.metrics import Array
from tureen_train.reports.plots import plot_reliability


def calibrate_rewards(rewards: Array, gaps: Array, folder: Path) -> Calibration:
    """Fit mean and deviation of the rewards and the temperature of the gaps; draw ``reliability.png`` into ``folder``.

    Args:
        rewards: of any shape; NaN is left out.
        gaps: ``[P]`` log-odds of the right verdict, one for each pair or step; without any there is no picture.
    """
    scale = fit_calibration(rewards[~np.isnan(rewards)].tolist(), gaps.tolist())
    if gaps.size:
        plot_reliability(gaps, folder / "reliability.png", scale.temperature)
    return scale
