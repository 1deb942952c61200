"""Plots: that they are there, of the right size, show something, and show the right thing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image, pyplot

from tureen_train.measures.intervals import Figure
from tureen_train.reports import plots
from tureen_train.reports.plots import (
    make_axes,
    plot_curves,
    plot_intervals,
    plot_lines,
    plot_margins,
    plot_matrix,
    plot_reliability,
    read_accuracies,
    read_agreements,
    save_figure,
)

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
    written = plot_curves(HISTORY, tmp_path / "run")
    assert [path.name for path in written] == ["loss.png", "accuracy.png"]
    assert all(ink(path) > 0.005 for path in written)


def test_ratings_become_a_curve_of_their_rank_correlations(tmp_path: Path) -> None:
    rated = {"eval_heldout_spearman": 0.2, "eval_heldout_quality_spearman": 0.3, "eval_heldout_flat_spearman": None}
    assert read_agreements(rated | {"eval_heldout_r2": 0.1}) == {"heldout": 0.2, "heldout_quality": 0.3}
    written = plot_curves([rated | {"step": 0}, {"loss": 1.0, "step": 1}, rated | {"step": 1}], tmp_path)
    assert [path.name for path in written] == ["loss.png", "agreement.png"]
    assert ink(tmp_path / "agreement.png") > 0.005


def test_without_evaluations_there_is_a_loss_and_without_steps_nothing(tmp_path: Path) -> None:
    assert [path.name for path in plot_curves([{"loss": 1.0, "step": 1}], tmp_path)] == ["loss.png"]
    assert plot_curves([], tmp_path) == []


def test_an_entrys_accuracies_by_file() -> None:
    assert read_accuracies(HISTORY[0]) == {"domains": 0.5}
    assert read_accuracies(HISTORY[2]) == read_accuracies(HISTORY[5]) == read_accuracies(HISTORY[6]) == {}


def test_trls_accuracy_belongs_to_the_file_whose_loss_stands_beside_it() -> None:
    entry = {"eval_heldout_loss": 0.6, "eval_rewards/accuracies": 0.9, "eval_mean_token_accuracy": 0.1, "step": 3}
    assert read_accuracies(entry) == {"heldout": 0.9}


def test_a_reliability_diagram(tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).normal(1, 2, 200)
    assert ink(plot_reliability(gaps, tmp_path / "deep" / "reliability.png", temperature=2.0)) > 0.005
    assert ink(plot_reliability(np.array([0.3]), tmp_path / "one.png")) > 0.005


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_diagram_shows_observed_frequencies(
    temperature: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of four pairs with a gap of 4 come out right: after σ(4 / T) stands 3/4, and its mirror image."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: seen.update(axes=figure.axes[0]) or path)
    plot_reliability(np.array([4.0, 4.0, 4.0, -4.0]), tmp_path / "r.png", temperature)
    line = seen["axes"].lines[2]
    p = 1 / (1 + np.exp(-4 / temperature))
    assert line.get_xdata() == pytest.approx([1 - p, p])
    assert line.get_ydata() == pytest.approx([0.25, 0.75])


def test_a_saved_figure_is_forgotten(tmp_path: Path) -> None:
    before = pyplot.get_fignums()
    figure, _ = make_axes()
    assert save_figure(figure, tmp_path / "a" / "b.png").is_file()
    assert pyplot.get_fignums() == before


def drawn_by(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the next picture holds, instead of a file."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        plots, "save_figure", lambda figure, path: seen.update(axes=figure.axes[0], figure=figure) or path
    )
    return seen


def test_whiskers_stand_where_the_intervals_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = drawn_by(monkeypatch)
    rows = {"first": {"one": Figure(0.5, 0.4, 0.7), "two": Figure(0.6)}, "second": {"two": Figure(0.1, 0.0, 0.2)}}
    plot_intervals(rows, "share, %", tmp_path / "w.png", floor=0.5)
    found = [(list(line.get_xdata()), list(line.get_ydata())) for line in seen["axes"].lines]
    assert found[:2] == [(pytest.approx([40, 70]), [0, 0]), ([50], [0])]
    assert found[2][0] == pytest.approx([60, 60])  # no interval is a point
    assert found[4][0] == pytest.approx([0, 20])
    assert [label.get_text() for label in seen["axes"].get_yticklabels()] == ["first", "second"]
    assert [text.get_text() for text in seen["figure"].legends[0].get_texts()] == ["one", "two"]


def test_margins_are_split_at_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = drawn_by(monkeypatch)
    plot_margins(np.array([-2.0, -0.5, 0.0, 1.0, 3.0]), tmp_path / "m.png")
    left, right = (sum(bar.get_height() for bar in bars) for bars in seen["axes"].containers)
    assert (left, right) == (2, 3)
    labels = [text.get_text() for text in seen["axes"].get_legend().get_texts()]
    assert labels == ["wrong (2)", "right, or equal (3)"]


def test_a_matrix_names_its_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = drawn_by(monkeypatch)
    plot_matrix(np.array([[1.0, 0.66], [0.66, float("nan")]]), ["one", "two"], tmp_path / "a.png")
    assert [text.get_text() for text in seen["axes"].texts] == ["100 %", "66 %", "66 %"]


def test_pictures_of_an_evaluation_are_written(tmp_path: Path) -> None:
    plot_intervals({"one": {"x": Figure(0.5, 0.4, 0.6)}}, "x", tmp_path / "w.png")
    plot_margins(np.array([0.0]), tmp_path / "m.png")
    plot_matrix(np.eye(2), ["a", "b"], tmp_path / "a.png")
    plot_lines({"run": [(1, 0.5), (2, 0.4)]}, "loss", tmp_path / "l.png")
    for name in "wmal":
        pixels = image.imread(tmp_path / f"{name}.png")
        assert (pixels[..., :3].min(-1) < 0.95).mean() > 0.005
