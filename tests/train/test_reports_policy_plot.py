"""The picture of a policy's steps: a panel for each figure that the log has, with its title and units."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib import image
from train.test_reports_policy_figures import GROUPS, PPO, ROUNDS

from tureen_train.reports import policy_plot
from tureen_train.reports.policy_plot import plot_policy


def drawn(history: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The panels of the picture, instead of a file."""
    seen: list[Any] = []

    def keep(figure: Any, path: Path) -> Path:
        seen.extend(figure.axes)
        return path

    monkeypatch.setattr(policy_plot, "save_figure", keep)
    plot_policy(history, folder)
    return [each for each in seen if each.get_visible()]


def test_each_figure_has_a_panel_with_its_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels = drawn(PPO, tmp_path, monkeypatch)
    assert [(each.get_title(loc="left"), each.get_ylabel(), each.get_xlabel()) for each in panels] == [
        ("Reward", "mean over answers", "step"),
        ("KL from the reference", "nats per token", "step"),
        ("Length of answers", "tokens", "step"),
        ("Entropy of the policy", "nats per token", "step"),
        ("Clipped ratios", "share", "step"),
    ]
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == ["weighted sum", "kind", "brief"]
    assert list(panels[2].lines[0].get_xdata()) == [1, 2]
    assert list(panels[2].lines[0].get_ydata()) == [7, 8]


def test_rounds_have_the_panels_that_their_log_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels = drawn(ROUNDS, tmp_path, monkeypatch)
    assert [each.get_title(loc="left") for each in panels] == ["Reward", "KL from the reference", "Length of answers"]
    assert {each.get_xlabel() for each in panels} == {"round"}


def test_the_picture_is_a_file_and_one_of_an_earlier_run_is_removed(tmp_path: Path) -> None:
    (path,) = plot_policy(GROUPS, tmp_path)
    assert path == tmp_path / "policy.png"
    assert (image.imread(path)[..., :3].min(-1) < 0.95).mean() > 0.005
    assert plot_policy([{"loss": 1.0, "step": 1}], tmp_path) == []
    assert not path.exists()
