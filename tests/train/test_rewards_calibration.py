"""The scale of held-out rewards: absent answers do not count, and a picture needs a pair."""

from pathlib import Path

import numpy as np
import pytest

from tureen_core.calibration import fit_temperature
from tureen_train.rewards.calibration import calibrate_rewards


def test_absent_answers_do_not_count(tmp_path: Path) -> None:
    gaps = np.array([2.0, -0.5, 1.0])
    scale = calibrate_rewards(np.array([[1.0, np.nan], [3.0, 5.0]]), gaps, tmp_path)
    assert scale.mean == 3.0
    assert scale.std == pytest.approx(float(np.std([1, 3, 5])))
    assert scale.temperature == fit_temperature(gaps.tolist())
    assert (tmp_path / "reliability.png").stat().st_size > 1000


def test_without_a_pair_there_is_no_picture(tmp_path: Path) -> None:
    assert calibrate_rewards(np.array([1.0, 2.0]), np.array([]), tmp_path).temperature == 1.0
    assert not list(tmp_path.iterdir())
