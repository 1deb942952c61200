"""Plots as PNG files: curves over training steps, reliability diagrams, figures with intervals, margins, agreement."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from tureen_train.measures.intervals import Figure
from tureen_train.measures.metrics import Array, find_bin, mirror_pairs

matplotlib.use("Agg")
from matplotlib import pyplot

INK = "#2f4858"
ACCENTS = ("#d1495b", "#00798c", "#edae49", "#66a182", "#8d6a9f", "#3d5a80")


def plot_curves(history: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Plot ``loss.png``, and ``accuracy.png`` or ``agreement.png`` of evaluations, from the log of a Trainer."""
    written = []
    loss = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    if loss:
        written.append(plot_lines({"training": loss}, "loss", folder / "loss.png", title="Training loss"))
    accuracy = collect_points(history, read_accuracies)
    if accuracy:
        written.append(plot_lines(accuracy, "pair accuracy", folder / "accuracy.png", 0.5, "Held-out accuracy"))
    agreement = collect_points(history, read_agreements)
    if agreement:
        label = "Spearman's correlation of rewards and ratings"
        written.append(plot_lines(agreement, label, folder / "agreement.png", 0.0, "Held-out rank correlation"))
    return written


def collect_points(
    history: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], Mapping[str, float]]
) -> dict[str, list[tuple[int, float]]]:
    """Collect (optimiser step, value) of each curve that ``read`` finds in the entries of a log."""
    found: dict[str, list[tuple[int, float]]] = {}
    for entry in history:
        for name, value in read(entry).items():
            found.setdefault(name, []).append((entry["step"], value))
    return found


def read_agreements(entry: Mapping[str, Any]) -> dict[str, float]:
    """Read the rank correlations of rewards and ratings in one entry of a log: by file, and by file and rating."""
    found = {match[1]: value for key, value in entry.items() if (match := re.fullmatch(r"eval_(.+)_spearman", key))}
    return {name: value for name, value in found.items() if value is not None and value == value}


def read_accuracies(entry: Mapping[str, Any]) -> dict[str, float]:
    """Read the pair accuracy of each evaluation file in one entry of a log.

    In TRL's logs only the key of the loss contains the file's name.
    """
    found = {}
    for key, value in entry.items():
        if match := re.fullmatch(r"eval_(.+)_(accuracy|loss)", key):
            name, figure = match.groups()
            number = value if figure == "accuracy" else entry.get("eval_rewards/accuracies", math.nan)
            if name != "mean_token" and number == number:
                found[name] = number
    return found


def plot_lines(
    series: Mapping[str, Sequence[tuple[int, float]]],
    label: str,
    path: Path,
    floor: float | None = None,
    title: str = "",
) -> Path:
    """Plot a curve over optimiser steps for each name. One with a single point says that it is no curve.

    Args:
        floor: the height of a dotted line, as 0.5 for the accuracy of chance.
    """
    figure, axes = make_axes()
    axes.set_title(title)
    for number, (name, points) in enumerate(series.items()):
        steps, values = zip(*points, strict=True)
        told = f"{name} (one point, no curve)" if len(points) == 1 else name
        axes.plot(steps, values, label=told, color=ACCENTS[number % len(ACCENTS)], marker="o", markersize=3)
    if floor is not None:
        axes.axhline(floor, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("optimiser step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel(label)
    axes.legend(loc="best", frameon=False)
    return save_figure(figure, path)


def plot_reliability(gaps: Array, path: Path, temperature: float = 1.0, bins: int = 10) -> Path:
    """Plot the reliability diagram of σ(gap / temperature): observed frequency against predicted probability.

    Each pair counts in both orders, so the plot is symmetric about (½, ½).
    """
    return plot_logit_reliability({"as trained": gaps, f"T = {temperature:.2f}": gaps / temperature}, path, bins)


def plot_logit_reliability(logits: Mapping[str, Array], path: Path, bins: int = 10) -> Path:
    """Plot a reliability diagram as :func:`plot_reliability` does, with a curve for the log-odds of each name."""
    figure, axes = make_axes()
    axes.set_title("Is the probability as honest as it looks?")
    # above the curves, so that one that lies on it does not hide it
    axes.plot([0, 1], [0, 1], color="black", linewidth=1.2, linestyle=":", label="perfectly calibrated", zorder=5)
    for (label, odds), colour in zip(logits.items(), ACCENTS, strict=False):
        p, outcome = mirror_pairs(odds)
        index = find_bin(p, bins)
        full = [k for k in range(bins) if np.any(index == k)]
        means = [[float(p[index == k].mean()), float(outcome[index == k].mean())] for k in full]
        axes.plot(*zip(*means, strict=True), marker="o", color=colour, label=label)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("observed frequency")
    axes.legend(loc="best", frameon=False)
    return save_figure(figure, path)


def make_axes(height: float = 4.2) -> tuple[Any, Any]:
    """Make an empty figure and its axes in the common style. ``height`` is in inches."""
    figure, axes = pyplot.subplots(figsize=(6.4, height), dpi=120, layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    return figure, axes


def make_panels(count: int, columns: int = 3) -> tuple[Any, list[Any]]:
    """Make a figure with ``count`` small axes in rows of ``columns``, in the common style."""
    wide = min(columns, count)
    rows = -(-count // wide)
    figure, panels = pyplot.subplots(
        rows, wide, figsize=(3.6 * wide, 2.9 * rows), dpi=120, layout="constrained", squeeze=False
    )
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=INK)
    for panel in panels.flat[count:]:
        panel.set_visible(False)
    return figure, list(panels.flat[:count])


def save_figure(figure: Any, path: Path) -> Path:
    """Save a figure as a file and close it. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
    return path


def plot_intervals(
    rows: Mapping[str, Mapping[str, Figure]],
    label: str,
    path: Path,
    floor: float | None = None,
    percent: bool = True,
    title: str = "",
) -> Path:
    """Plot figures with their intervals. A row with several figures shows them below each other, in colours.

    Args:
        floor: the place of a dotted line, as 0.5 for the accuracy of chance.
        percent: whether the figures are shares, to be shown in per cent.
    """
    kinds = list(dict.fromkeys(kind for row in rows.values() for kind in row))
    each = 0.24 if len(kinds) == 1 else 0.15
    height = max(1.8, 0.9 + each * sum(len(row) + 0.7 for row in rows.values()))
    figure, axes = make_axes(height + (0.3 if len(kinds) > 1 else 0))
    scale, ticks, at = 100 if percent else 1, [], 0.0
    for row in rows.values():
        ticks.append(at + (len(row) - 1) / 2)
        for kind, found in row.items():
            low, high = (found.value if math.isnan(edge) else edge for edge in (found.low, found.high))
            colour = ACCENTS[kinds.index(kind) % len(ACCENTS)] if len(kinds) > 1 else ACCENTS[1]
            axes.plot([scale * low, scale * high], [at, at], color=colour, linewidth=2, alpha=0.45)
            axes.plot([scale * found.value], [at], color=colour, marker="o", markersize=5 if len(kinds) == 1 else 4)
            at += 1
        at += 0.7
    if floor is not None:
        axes.axvline(scale * floor, color="grey", linewidth=0.8, linestyle=":")
    if len(kinds) > 1:
        handles = [axes.plot([], [], marker="o", color=ACCENTS[n % len(ACCENTS)])[0] for n in range(len(kinds))]
        figure.legend(handles, kinds, frameon=False, loc="outside lower center", ncols=3, fontsize=9)
    axes.set_yticks(ticks, list(rows), fontsize=9)
    axes.set_ylim(at - 0.7, -1)
    axes.grid(axis="x", color="#e8ecef")
    if title:
        figure.suptitle(title, fontsize=10)  # over the whole figure: the axes leave no room for a long one
    axes.set_xlabel(label)
    return save_figure(figure, path)


def plot_margins(gaps: Array, path: Path) -> Path:
    """Plot a histogram of margins. Pairs judged right are to the right of zero, pairs judged wrong to the left."""
    figure, axes = make_axes(3.4)
    edge = float(np.abs(gaps).max()) or 1.0
    bins = np.linspace(-edge, edge, 31)
    axes.hist(gaps[gaps < 0], bins, color=ACCENTS[0], label=f"wrong ({int((gaps < 0).sum())})")
    axes.hist(gaps[gaps >= 0], bins, color=ACCENTS[1], label=f"right, or equal ({int((gaps >= 0).sum())})")
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_title("Margins of the pairs")
    axes.set_xlabel("reward of the better answer minus that of the worse one")
    axes.set_ylabel("pairs")
    axes.legend(loc="best", frameon=False)
    return save_figure(figure, path)


def plot_matrix(values: Array, names: Sequence[str], path: Path) -> Path:
    """Plot a square table of shares in [0, 1]. The larger a share, the darker its cell; NaN stays white."""
    figure, axes = make_axes(max(2.6, 1.4 + 0.6 * len(names)))
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        if not math.isnan(value):
            colour = "white" if value > 0.6 else INK
            axes.text(column, row, f"{100 * value:.0f} %", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right", fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.spines[:].set_visible(False)
    return save_figure(figure, path)
