"""Margins against similarity and caps: figures by hand."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tureen_train.measures.margins import Margins, compute_cap_figures, select_pair_caps
from tureen_train.measures.metrics import compute_gaps

NAN = math.nan


def margins(**changes: Any) -> Margins:
    given: dict[str, Any] = {
        "sources": ["a", "a", "b", "c"],
        "owner": np.array([0, 0, 1, 2]),
        "gaps": np.array([1.0, 4.0, -1.0, 2.0]),
        "similarity": {"cosine": np.array([0.9, 0.6, 0.95, 0.8])},
        "caps": np.array([2.0, 3.0, 2.0, 2.0]),
        "prompts": 3,
    }
    return Margins(**{**given, **changes})


def test_caps_stand_beside_the_gaps_of_their_pairs() -> None:
    scores = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, NAN]])
    rewards = np.array([[5.0, 3.0, 0.0], [1.0, 0.0, NAN]])
    caps = np.arange(18.0).reshape(2, 3, 3)
    assert compute_gaps(rewards, scores).tolist() == [2, 5, 3, -1]
    assert select_pair_caps(caps, scores).tolist() == [caps[0, 0, 1], caps[0, 0, 2], caps[0, 1, 2], caps[1, 1, 0]]


def test_a_gap_at_its_cap_is_not_over_it() -> None:
    assert compute_cap_figures(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])) == {"cap": 2, "over_cap": 1 / 3}
    assert all(math.isnan(value) for value in compute_cap_figures(np.array([]), np.array([])).values())


def test_figures_of_a_few_pairs() -> None:
    found = margins().figures()
    values = {name: figure.value for name, figure in found.items()}
    assert values == {
        "accuracy": 0.75,
        "margin": 1.5,
        "margin_std": pytest.approx(np.std([1, 4, -1, 2])),
        "right_margin": pytest.approx(7 / 3),
        "cap": 2.25,
        "over_cap": 0.25,
        "gap_by_cosine": pytest.approx(-1.0),
    }
    assert all(figure.n == 4 for figure in found.values())
    assert found["margin"].low == -1  # three draws of prompt b
    assert found["margin"].high == 2.5  # three draws of prompt a


def test_without_a_constraint_there_is_no_cap() -> None:
    assert not {"cap", "over_cap"} & margins(caps=None).figures().keys()


def test_every_pair_is_a_line(tmp_path: Path) -> None:
    margins().write(tmp_path / "pairs.csv")
    with (tmp_path / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {"source": "a", "gap": "4", "cosine": "0.6", "cap": "3"}
    assert len(rows) == 4
