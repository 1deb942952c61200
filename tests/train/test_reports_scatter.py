"""The picture of margins against similarity."""

from pathlib import Path

import numpy as np
from train.test_measures_margins import margins

from tureen_train.config.ranking import LengthCap
from tureen_train.measures.constraints import compute_caps
from tureen_train.reports.scatter import plot_scatter


def test_the_picture_keeps_its_scale_where_a_cap_soars(tmp_path: Path) -> None:
    places = np.linspace(0.01, 1, 50)
    settings = LengthCap(prior="length_ratio", beta1=2)
    path = plot_scatter(margins(), "cosine", tmp_path / "cosine.png", (places, compute_caps(settings, places)))
    assert path.read_bytes().startswith(b"\x89PNG")
