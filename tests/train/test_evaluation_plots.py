"""Plots: that they are there, of the right size, show something, and show the right thing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image, pyplot

from tureen_train.evaluation import plots
from tureen_train.evaluation.plots import accuracies, curves, reliability, save, sheet

HISTORY: list[dict[str, Any]] = [
    {"eval_domains_accuracy": 0.5, "eval_domains_loss": 0.7, "step": 0},
    {"eval_helpful_accuracy": 0.4, "eval_helpful_loss": 0.8, "step": 0},
    {"loss": 0.7, "learning_rate": 1e-4, "step": 1},
    {"loss": 0.4, "step": 2},
    {"eval_domains_accuracy": 0.8, "step": 2},
    {"eval_helpful_accuracy": float("nan"), "step": 2},
    {"train_loss": 0.55, "train_runtime": 1.0, "step": 2},
]


def drawn(path: Path) -> np.ndarray[Any, Any]:
    """A picture's pixels; its size is the house's 768 × 504."""
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = image.imread(path)
    assert pixels.shape[:2] == (504, 768)
    return pixels


def ink(path: Path) -> float:
    """The share of pixels that are not white."""
    return float((drawn(path)[..., :3].min(-1) < 0.95).mean())


def test_a_history_becomes_two_pictures(tmp_path: Path) -> None:
    written = curves(HISTORY, tmp_path / "run")
    assert [path.name for path in written] == ["loss.png", "accuracy.png"]
    assert all(ink(path) > 0.005 for path in written)


def test_without_evaluations_there_is_a_loss_and_without_steps_nothing(tmp_path: Path) -> None:
    assert [path.name for path in curves([{"loss": 1.0, "step": 1}], tmp_path)] == ["loss.png"]
    assert curves([], tmp_path) == []


def test_an_entrys_accuracies_by_file() -> None:
    assert accuracies(HISTORY[0]) == {"domains": 0.5}
    assert accuracies(HISTORY[2]) == accuracies(HISTORY[5]) == accuracies(HISTORY[6]) == {}


def test_trls_accuracy_belongs_to_the_file_whose_loss_stands_beside_it() -> None:
    entry = {"eval_heldout_loss": 0.6, "eval_rewards/accuracies": 0.9, "eval_mean_token_accuracy": 0.1, "step": 3}
    assert accuracies(entry) == {"heldout": 0.9}


def test_a_reliability_diagram(tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).normal(1, 2, 200)
    assert ink(reliability(gaps, tmp_path / "deep" / "reliability.png", temperature=2.0)) > 0.005
    assert ink(reliability(np.array([0.3]), tmp_path / "one.png")) > 0.005


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_diagram_shows_observed_frequencies(
    temperature: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of four pairs with a gap of 4 come out right: after σ(4 / T) stands 3/4, and its mirror image."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(plots, "save", lambda figure, path: seen.update(axes=figure.axes[0]) or path)
    reliability(np.array([4.0, 4.0, 4.0, -4.0]), tmp_path / "r.png", temperature)
    line = seen["axes"].lines[2]
    p = 1 / (1 + np.exp(-4 / temperature))
    assert line.get_xdata() == pytest.approx([1 - p, p])
    assert line.get_ydata() == pytest.approx([0.25, 0.75])


def test_a_saved_figure_is_forgotten(tmp_path: Path) -> None:
    before = pyplot.get_fignums()
    figure, _ = sheet()
    assert save(figure, tmp_path / "a" / "b.png").is_file()
    assert pyplot.get_fignums() == before
