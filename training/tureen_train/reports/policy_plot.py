"""The plot of a policy's figures by step or round: one picture with a panel for each figure that its log has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tureen_train.reports.plots import ACCENTS, make_panels, save_figure
from tureen_train.reports.policy_figures import FIGURES, REWARDS, name_rewards, read_policy_steps

PICTURE = "policy.png"


def plot_policy(history: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Plot ``policy.png`` from the entries of a log; nothing if none tells a reward of answers."""
    steps = read_policy_steps(history)
    path = folder / PICTURE
    if not steps.numbers:
        path.unlink(missing_ok=True)  # of an earlier run in the same folder
        return []
    shown = [each for each in FIGURES if each.drawn and each.key in steps.figures]
    figure, panels = make_panels(1 + len(shown), columns=2)
    for number, (name, values) in enumerate(name_rewards(steps).items()):
        _draw(panels[0], steps.numbers, values, ACCENTS[number % len(ACCENTS)], name)
    panels[0].legend(loc="best", frameon=False, fontsize=8)
    for panel, each in zip(panels[1:], shown, strict=True):
        _draw(panel, steps.numbers, steps.figures[each.key], ACCENTS[1], each.title)
    for panel, each in zip(panels, (REWARDS, *shown), strict=True):
        panel.set_title(each.title, fontsize=10, loc="left")
        panel.set_ylabel(each.unit, fontsize=9)
        panel.set_xlabel(steps.unit, fontsize=9)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.ticklabel_format(axis="y", useOffset=False)
        panel.tick_params(labelsize=8)
    return [save_figure(figure, path)]


def _draw(panel: Any, numbers: Sequence[int], values: Sequence[float], colour: str, label: str) -> None:
    marker = "o" if len(numbers) <= 50 else ""
    panel.plot(numbers, values, label=label, color=colour, marker=marker, markersize=3, linewidth=1.3)
