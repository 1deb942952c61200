"""The plots of a measured front as PNG files."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from tureen_train.front.figures import FrontPoint, MethodFigures
from tureen_train.front.measured import MeasuredFront
from tureen_train.front.pareto import chain_points
from tureen_train.reports.plots import ACCENTS, make_axes, make_panels, plot_intervals, save_figure

MARKS = ("o", "s", "^", "D", "v", "P", "X")


def plot_fronts(front: MeasuredFront, points: Sequence[FrontPoint], path: Path) -> Path:
    """Plot the mean rewards of all methods, one panel for each pair of objectives. Filled points are on the front."""
    pairs = list(combinations(range(len(front.objectives)), 2))
    if len(pairs) == 1:
        figure, panel = make_axes(4.8)
        panels = [panel]
    else:
        figure, panels = make_panels(len(pairs))
    for number, (name, method) in enumerate(front.methods.items()):
        own = [each for each in points if each.method == name]
        colour, mark = ACCENTS[number % len(ACCENTS)], MARKS[number // len(ACCENTS) % len(MARKS)]
        for (x, y), panel in zip(pairs, panels, strict=True):
            if len(pairs) == 1:
                chain = chain_points(method.means)
                panel.plot(method.means[chain, x], method.means[chain, y], color=colour, linewidth=0.8, alpha=0.6)
            panel.scatter(
                [each.means[x] for each in own],
                [each.means[y] for each in own],
                s=26,
                marker=mark,
                edgecolors=colour,
                facecolors=[colour if each.front else "none" for each in own],
                label=name,
            )
    for (x, y), panel in zip(pairs, panels, strict=True):
        panel.set_xlabel(f"{front.objectives[x]} ({front.units[front.objectives[x]]})")
        panel.set_ylabel(f"{front.objectives[y]} ({front.units[front.objectives[y]]})")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, loc="outside upper center", ncols=3, fontsize=8)
    return save_figure(figure, path)


def plot_hypervolumes(figures: Mapping[str, MethodFigures], path: Path) -> Path:
    """Plot the hypervolume of each method with its interval."""
    rows = {name: {"hypervolume": each.hypervolume} for name, each in figures.items()}
    return plot_intervals(rows, "hypervolume", path, percent=False)
